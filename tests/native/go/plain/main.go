package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

func main() {
	switch os.Args[1] {
	case "echo": // HOST:PORT COUNT: connections at the same time, in plain text as far as this program knows
		var count int
		fmt.Sscan(os.Args[3], &count)
		var group sync.WaitGroup
		fails := make(chan error, count)
		for i := 0; i < count; i++ {
			group.Add(1)
			go func(i int) {
				defer group.Done()
				fails <- echo(os.Args[2], fmt.Sprintf("line %d\n", i))
			}(i)
		}
		group.Wait()
		close(fails)
		bad := 0
		for err := range fails {
			if err != nil {
				fmt.Println(err)
				bad = 1
			}
		}
		fmt.Println("done")
		os.Exit(bad)
	case "get":
		reply, err := http.Get("http://" + os.Args[2] + "/")
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		io.Copy(os.Stdout, reply.Body)
	case "raw": // PORT: a TLS socket by its number
		var port int
		fmt.Sscan(os.Args[2], &port)
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 205)
		if err == nil {
			err = syscall.SetsockoptString(fd, 205, 85, "localhost")
		}
		if err == nil {
			err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		syscall.Write(fd, []byte("hello\n"))
		data := make([]byte, 100)
		n, err := syscall.Read(fd, data)
		fmt.Print(string(data[:n]))
		syscall.Close(fd)
	case "serve":
		listener, err := net.Listen("tcp", os.Args[2])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		for i := 0; ; i++ {
			connection, err := listener.Accept()
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			go func() {
				io.Copy(connection, connection)
				connection.Close()
			}()
		}
	}
}

func echo(address, line string) error {
	connection, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err = connection.Write([]byte(line)); err != nil {
		return err
	}
	data := make([]byte, len(line))
	if _, err = io.ReadFull(connection, data); err != nil {
		return err
	}
	if string(data) != line {
		return fmt.Errorf("%q", data)
	}
	return nil
}
