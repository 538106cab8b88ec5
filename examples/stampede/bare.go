package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// bareVariable in the environment makes this program the bare handler.
const bareVariable = "STAMPEDE_SERVE_BARE"

// bareBody is as long as a shop's refusal.
const bareBody = `{"type":"urn:firstcome:sold-out","title":"Sold out","status":409,"detail":"no unit is left, and none will come back"}` + "\n"

// bareHandler is the least that a handler of purchases does: read the body and
// answer. What a shop takes longer than this is what it does for its promise.
func bareHandler(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		http.Error(w, "cannot read the body", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusConflict)
	_, _ = io.WriteString(w, bareBody)
}

// startBare serves the bare handler in this process.
func startBare() (url string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("bare handler: %w", err)
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(bareHandler),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends when closed
	}()
	return "http://" + listener.Addr().String(), func() { _ = server.Close(); <-served }, nil
}

// serveBareIfAsked makes this process the bare handler if its parent says so:
// it prints its address, serves, and ends when its standard input does, which
// happens at the latest when the parent dies.
func serveBareIfAsked() bool {
	if os.Getenv(bareVariable) == "" {
		return false
	}
	url, stop, err := startBare()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stampede:", err)
		os.Exit(1)
	}
	fmt.Println(url)
	_, _ = io.Copy(io.Discard, os.Stdin)
	stop()
	return true
}

// startBareChild serves the bare handler in a child process, so that it shares
// the machine with the generator as a shop in a process of its own does.
func startBareChild(ctx context.Context) (url string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, fmt.Errorf("bare handler: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), bareVariable+"=1")
	cmd.Stderr = os.Stderr
	input, err1 := cmd.StdinPipe()
	output, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		cancel()
		return "", nil, fmt.Errorf("bare handler: %w", err)
	}
	stop = func() {
		_ = input.Close()
		late := time.AfterFunc(5*time.Second, cancel)
		_ = cmd.Wait()
		late.Stop()
		cancel()
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("bare handler: it did not start: %w", err)
	}
	return strings.TrimSpace(line), stop, nil
}
