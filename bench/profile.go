package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
)

// profiled runs a load once more, unmeasured, while the node profiles itself.
func (c *comparison) profiled(ctx context.Context, name string, l load) error {
	l.seconds = 5
	node := c.s.target(rangefinder)
	done := make(chan error, 1)
	go func() {
		done <- c.saveProfile(ctx, fmt.Sprintf("%s-%d.pprof", name, l.clients), node, "profile?seconds="+strconv.Itoa(l.seconds-1))
	}()
	_, err := c.s.pgbench(ctx, node, l)
	return errors.Join(err, <-done)
}

// saveProfile writes what the node answers below /debug/pprof to a file.
func (c *comparison) saveProfile(ctx context.Context, name string, node *target, what string) error {
	if err := os.MkdirAll(c.profile, 0o755); err != nil {
		return err
	}
	file := filepath.Join(c.profile, name)
	if err := save(ctx, node.admin+"/debug/pprof/"+what, file); err != nil {
		return err
	}
	c.printf("profile: %s\n", file)
	return nil
}

// save writes what a URL answers to a file.
func save(ctx context.Context, url, name string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
