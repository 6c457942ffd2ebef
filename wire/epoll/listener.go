package epoll

// Listener is told of a socket's events.
type Listener interface {
	// Told is called when there is something to read, room to write again, or a deadline has passed. inSet: it is the set's own
	// goroutine that calls, so Told must not wait.
	Told(inSet bool)
}

// Runner is a Listener that the Set's goroutine can run together with others.
type Runner interface {
	Listener
	// Take takes the right to run it. It returns false if somebody runs it already, who will look around once more.
	Take() bool
	// Room returns where what has come to the socket is to be read to; nil: nothing of it is to be read yet. It follows Take.
	Room(*Socket) []byte
	// Got tells what was read, as TryRead does.
	Got(s *Socket, n int, err error)
	// Run runs it. What it has to write it may leave to the batch, by Write: then it is run again afterwards.
	Run(*Batch)
	// Wrote tells what became of that, as TryWrite does. Run follows.
	Wrote(n int, err error)
}
