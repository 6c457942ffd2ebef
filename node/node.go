package node

import (
	"context"
	"log/slog"
)

type Options struct {
	Logger *slog.Logger
	Getenv func(string) (string, bool)
}
type Node struct{}

func New(cfg Config, o Options) (*Node, error)     { return nil, nil }
func (n *Node) Open(ctx context.Context) error     { return nil }
func (n *Node) Close() error                       { return nil }
func (n *Node) Failed() <-chan struct{}            { return nil }
