package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"ssa"
)

// get fetches URLs with net/http: the size, its hash, and what is known of the connection.
func get() error {
	client := http.Client{Transport: &http.Transport{DialTLSContext: new(ssa.Dialer).DialContext}}
	for _, url := range os.Args[2:] {
		answer, err := client.Get(url)
		if err != nil {
			fmt.Println(err)
			continue
		}
		hash := sha256.New()
		size, err := io.Copy(hash, answer.Body)
		answer.Body.Close()
		fmt.Printf("%d %x %s\n", size, hash.Sum(nil), errno(err))
	}
	return nil
}

// serve serves files with net/http, by the administrator's certificate, until its input ends.
func serve() error {
	listener, err := ssa.Listen("tcp", "127.0.0.1:0", &ssa.Config{NextProtos: []string{"http/1.1"}})
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := http.Server{Handler: http.FileServer(http.Dir(os.Getenv("FILES")))}
	go server.Serve(listener)
	io.Copy(io.Discard, input)
	stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return server.Shutdown(stop)
}

// limitedServer accepts with no descriptors left, and then with some.
func limitedServer() error {
	listener, err := ssa.Listen("tcp", "127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	fds, _ := warm()
	before := syscall.Rlimit{}
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before)
	least := before
	least.Cur = uint64(fds)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	wait()
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &least)
	_, err = listener.Accept()
	var told net.Error
	fmt.Println(errors.Is(err, syscall.EMFILE), errors.As(err, &told) && told.Temporary())
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	wait()
	conn, err := listener.Accept()
	fmt.Println(errno(err))
	if err == nil {
		conn.Close()
	}
	return nil
}

// gone accepts a client that has gone, by a reset, before it is accepted.
func gone() error {
	listener, err := ssa.Listen("tcp", "127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	wait()
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	fmt.Println(conn.RemoteAddr())
	_, err = conn.Read(make([]byte, 10))
	fmt.Println(err != nil)
	listener.SetDeadline(time.Now().Add(50 * time.Millisecond))
	_, err = listener.Accept()
	fmt.Println(errno(err))
	time.AfterFunc(50*time.Millisecond, func() { listener.Close() })
	listener.SetDeadline(time.Time{})
	_, err = listener.Accept()
	fmt.Println(errno(err))
	return nil
}
