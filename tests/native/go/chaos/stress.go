package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"ssa"
)

func init() { programs["stress"] = stress }

const echoed = 4 << 20 // bytes

// stress has writers and readers on one connection whose peer sends all of it back. Each byte has to come, however often
// the keys change meanwhile.
func stress() error {
	conn, err := ssa.Dial("tcp", address(), nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	var group sync.WaitGroup
	var mutex sync.Mutex
	got := 0
	for reader := 0; reader < 2; reader++ {
		group.Add(1)
		go func() {
			defer group.Done()
			room := make([]byte, 10000)
			for {
				n, err := conn.Read(room)
				mutex.Lock()
				got += n
				whole := got >= echoed
				mutex.Unlock()
				for _, char := range room[:n] {
					if char != 'x' {
						fmt.Println("another byte:", char)
						return
					}
				}
				if whole {
					conn.SetReadDeadline(time.Now()) // the other one need not wait any more
					return
				}
				if err != nil {
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						fmt.Println("read:", err)
					}
					return
				}
			}
		}()
	}
	for writer := 0; writer < 4; writer++ {
		group.Add(1)
		go func() {
			defer group.Done()
			piece := make([]byte, 3000)
			for at := range piece {
				piece[at] = 'x'
			}
			for left := echoed / 4; left > 0; left -= len(piece) {
				if left < len(piece) {
					piece = piece[:left]
				}
				if _, err := conn.Write(piece); err != nil {
					fmt.Println("write:", err)
					return
				}
			}
		}()
	}
	group.Wait()
	fmt.Println(got)
	return endInOrder(conn)
}

// endInOrder says close_notify, and wants the peer's.
func endInOrder(conn *ssa.Conn) error {
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("write behind the end: %v", err)
	}
	_, err := io.Copy(io.Discard, onlyReader{conn})
	return err
}

type onlyReader struct{ net.Conn }
