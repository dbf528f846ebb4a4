package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"ssa"
)

// startTLS serves one client that agrees on TLS first, and is a client of itself.
func startTLS() error {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- serveStartTLS(inner) }()
	plain, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		return err
	}
	read := bufio.NewReader(plain)
	fmt.Fprint(plain, "STARTTLS\r\n")
	if os.Getenv("EAGER") != "" {
		time.Sleep(200 * time.Millisecond)
	}
	if _, err := read.ReadString('\n'); err != nil {
		return err
	}
	conn, err := ssa.Client(context.Background(), plain, read, &ssa.Config{ServerName: "localhost"})
	if err != nil {
		_, after := plain.Write([]byte("x"))
		fmt.Println(err, errno(after))
		<-served
		return nil
	}
	defer conn.Close()
	fmt.Fprint(conn, "hello")
	got, err := io.ReadAll(conn)
	fmt.Printf("%q %s %s\n", got, errno(err), errno(<-served))
	return nil
}

func serveStartTLS(inner net.Listener) error {
	plain, err := inner.Accept()
	if err != nil {
		return err
	}
	read := bufio.NewReader(plain)
	if _, err := read.ReadString('\n'); err != nil {
		return err
	}
	if os.Getenv("EAGER") != "" { // plain text behind the agreement
		fmt.Fprint(plain, "go ahead\r\n* injected\r\n")
	} else {
		fmt.Fprint(plain, "go ahead\r\n")
	}
	if os.Getenv("AHEAD") != "" {
		read.Peek(1) // the client's first bytes of TLS are in the buffer now
	}
	conn, err := ssa.Server(context.Background(), plain, read, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	room := make([]byte, 100)
	n, err := conn.Read(room)
	if err != nil {
		return err
	}
	_, err = conn.Write(append(room[:n], " back"...))
	return err
}
