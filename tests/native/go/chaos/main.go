// Small programs for tests/native/test_go*.py: `chaos NAME`. They print what they find; a line "input" waits for one.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ssa"
)

var input = bufio.NewReader(os.Stdin)

var programs = map[string]func() error{
	"connect": connect, "talk": talk, "cancel": cancel, "many": many, "limit": limit, "deadlines": deadlines,
	"get": get, "serve": serve, "crowd": crowd, "gone": gone, "starttls": startTLS, "check": check, "limited-server": limitedServer,
}

func main() {
	if len(os.Args) < 2 {
		return
	}
	if err := programs[os.Args[1]](); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func address() string { return "localhost:" + os.Getenv("PORT") }

func wait() {
	fmt.Println("input")
	input.ReadString('\n')
}

func errno(err error) string {
	var number syscall.Errno
	switch {
	case err == nil:
		return "none"
	case err == io.EOF:
		return "EOF"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "deadline"
	case errors.Is(err, net.ErrClosed):
		return "closed"
	case errors.As(err, &number):
		return fmt.Sprint(int(number))
	}
	return err.Error()
}

func descriptors() int {
	found, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(found)
}

// settled waits until nothing is left of what was begun: "clean", or what there is.
func settled(fds, goroutines int) string {
	for tries := 0; tries < 500; tries++ {
		if descriptors() <= fds && runtime.NumGoroutine() <= goroutines {
			return "clean"
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Sprint("left: descriptors ", descriptors()-fds, ", goroutines ", runtime.NumGoroutine()-goroutines)
}

// warm has Go's own resolver and poller open what they keep.
func warm() (int, int) {
	net.LookupHost("localhost")
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		probe.Close()
	}
	return descriptors(), runtime.NumGoroutine()
}

// connect says what a Dial comes to.
func connect() error {
	fds, goroutines := warm()
	_, err := ssa.Dial("tcp", address(), nil)
	var told *ssa.Error
	if errors.As(err, &told) {
		fmt.Println(int(told.Errno), told.Fault, told.Temporary())
	} else {
		fmt.Println(errno(err))
	}
	fmt.Println(err)
	fmt.Println(settled(fds, goroutines))
	return nil
}

// check says what a Check comes to, and how long it took.
func check() error {
	began := time.Now()
	err := (&ssa.Config{NextProtos: []string{"h2"}}).Check(context.Background())
	fmt.Println(errno(err), time.Since(began) < 8*time.Second)
	fmt.Println(err)
	return nil
}

// talk connects, waits, and reads and writes.
func talk() error {
	conn, err := ssa.Dial("tcp", address(), nil)
	if err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	wait()
	room := make([]byte, 100)
	for range [2]int{} {
		n, err := conn.Read(room)
		fmt.Printf("%q %s %v\n", room[:n], errno(err), errors.Is(err, io.ErrUnexpectedEOF))
	}
	_, err = conn.Write([]byte("x"))
	fmt.Println(errno(err))
	fmt.Println(errno(conn.Close()))
	return nil
}

// cancel ends the context of a Dial in the middle of a step, which the environment has made one that does not end.
func cancel() error {
	fds, goroutines := warm()
	dialer := ssa.Dialer{NetDialer: &net.Dialer{}}
	switch os.Getenv("STEP") {
	case "resolver":
		dialer.NetDialer.Resolver = &net.Resolver{
			PreferGo: true,
			Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		}
	}
	host := os.Getenv("HOST")
	if host == "" {
		host = "127.0.0.1"
	}
	ctx, stop := context.WithCancel(context.Background())
	if os.Getenv("STEP") == "before" {
		stop()
	}
	time.AfterFunc(300*time.Millisecond, stop)
	began := time.Now()
	_, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, os.Getenv("PORT")))
	took := time.Since(began)
	fmt.Println(errors.Is(err, context.Canceled) || strings.Contains(fmt.Sprint(err), "operation was canceled"), took < 2*time.Second)
	fmt.Println(settled(fds, goroutines))
	late, stop := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer stop()
	began = time.Now()
	_, err = dialer.DialContext(late, "tcp", net.JoinHostPort(host, os.Getenv("PORT")))
	took = time.Since(began)
	var timeout net.Error
	fmt.Println(errors.As(err, &timeout) && timeout.Timeout() || os.Getenv("STEP") == "before", took < 2*time.Second)
	fmt.Println(settled(fds, goroutines))
	return nil
}

// many has 1,000 goroutines connect at once and talk.
func many() error {
	fds, goroutines := warm()
	var group sync.WaitGroup
	var done, failed atomic.Int64
	var first sync.Once
	for number := 0; number < 1000; number++ {
		group.Add(1)
		go func(number int) {
			defer group.Done()
			if err := echoOnce(fmt.Sprintf("number %d", number)); err != nil {
				failed.Add(1)
				first.Do(func() { fmt.Println(err) })
				return
			}
			done.Add(1)
		}(number)
	}
	group.Wait()
	fmt.Println(done.Load(), failed.Load())
	fmt.Println(settled(fds, goroutines))
	return nil
}

func echoOnce(text string) error {
	var conn net.Conn
	for tries := 0; ; tries++ {
		made, err := new(ssa.Dialer).Dial("tcp", address())
		if err == nil {
			conn = made
			break
		}
		var told net.Error
		if tries > 200 || !errors.As(err, &told) || !told.Temporary() {
			return err
		}
		time.Sleep(50 * time.Millisecond) // ssad has many others of ours to serve
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	room := make([]byte, len(text))
	if _, err := io.ReadFull(conn, room); err != nil || string(room) != text {
		return fmt.Errorf("%q: %v", room, err)
	}
	return nil
}

// limit connects until there are no descriptors left, closes all, and connects again.
func limit() error {
	fds, goroutines := warm()
	var least syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &least)
	least.Cur = uint64(fds + 12)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &least); err != nil {
		return err
	}
	var made []*ssa.Conn
	for {
		conn, err := ssa.Dial("tcp", address(), nil)
		if err != nil {
			fmt.Println(errors.Is(err, syscall.EMFILE), len(made) > 2)
			break
		}
		made = append(made, conn)
	}
	for _, conn := range made {
		if _, err := conn.Write([]byte("still")); err != nil {
			return err
		}
		conn.Close() // where ssad cannot be told, the peer sees a cut
	}
	fmt.Println(settled(fds, goroutines))
	fmt.Println(errno(echoOnce("again")))
	return nil
}

// deadlines tries them, and Close, from other goroutines.
func deadlines() error {
	conn, err := ssa.Dial("tcp", address(), nil)
	if err != nil {
		return err
	}
	room := make([]byte, 100)
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err = conn.Read(room)
	fmt.Println(errno(err))
	conn.SetReadDeadline(time.Time{})
	time.AfterFunc(50*time.Millisecond, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	_, err = conn.Read(room)
	fmt.Println(errno(err))
	conn.SetDeadline(time.Time{})
	conn.Write([]byte("hello"))
	n, err := conn.Read(room)
	fmt.Printf("%q %s\n", room[:n], errno(err))
	full := make([]byte, 64<<20) // more than anybody's buffers have: the peer does not read
	conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	sent, err := conn.Write(full)
	fmt.Println(sent > 0 && sent < len(full), errno(err))
	conn.SetWriteDeadline(time.Time{})
	var group sync.WaitGroup
	for _, call := range []func() error{
		func() error { _, err := conn.Read(room); return err },
		func() error { _, err := conn.Write(full); return err },
	} {
		group.Add(1)
		go func(call func() error) {
			defer group.Done()
			if got := errno(call()); got != "closed" {
				fmt.Println("not closed:", got)
			}
		}(call)
	}
	time.Sleep(100 * time.Millisecond)
	fmt.Println(errno(conn.Close()), errno(conn.Close()))
	group.Wait()
	_, err = conn.Write([]byte("x"))
	fmt.Println(errno(err))
	return nil
}

// crowd has goroutines read from, write to and close one connection at once.
func crowd() error {
	for round := 0; round < 20; round++ {
		conn, err := ssa.Dial("tcp", address(), nil)
		if err != nil {
			return err
		}
		var group sync.WaitGroup
		for number := 0; number < 4; number++ {
			group.Add(3)
			go func() {
				defer group.Done()
				room := make([]byte, 1000)
				for {
					if _, err := conn.Read(room); err != nil {
						return
					}
				}
			}()
			go func() {
				defer group.Done()
				for {
					if _, err := conn.Write(make([]byte, 1000)); err != nil {
						return
					}
				}
			}()
			go func() {
				defer group.Done()
				for count := 0; count < 100; count++ {
					conn.SetDeadline(time.Now().Add(time.Second))
					conn.ConnectionState()
					conn.RemoteAddr()
				}
			}()
		}
		time.Sleep(time.Duration(round) * time.Millisecond)
		switch round % 3 {
		case 0:
			conn.CloseWrite()
			fallthrough
		default:
			conn.Close()
		}
		group.Wait()
	}
	fmt.Println("done")
	return nil
}
