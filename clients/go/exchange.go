package ssa

// All that talks to ssad. A request is one packet, and so is its reply (docs/library.md, "The daemon's socket").

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	local      = 5 * time.Second        // for the answers that wait for nobody but ssad
	grace      = 500 * time.Millisecond // ssad keeps the time, and its words are read a little later
	queueWait  = 50 * time.Millisecond  // a wait for a place in ssad's queue, before it is looked whether it is given up
	inQueue    = 32                     // threads that wait for such a place, of all goroutines
	mostPassed = 2                      // descriptors that come with a reply
)

// aLongTimeAgo is a deadline that wakes whoever waits.
var aLongTimeAgo = time.Unix(1, 0)

// An exchange is a connection to ssad.
type exchange struct {
	file *os.File
	raw  syscall.RawConn
}

// openExchange connects to ssad. Its errors are *Error, or the context's.
func openExchange(ctx context.Context) (*exchange, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := runDirectory() + "/ssad.sock"
	fd, err := daemonSocket()
	if err != nil {
		return nil, err
	}
	err = connectWithin(ctx, fd, &syscall.SockaddrUnix{Name: path})
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		syscall.Close(fd)
		return nil, explainNoDaemon(err, path)
	}
	return exchangeOf(fd)
}

func daemonSocket() (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, systemError(err, "no socket for the connection to ssad")
	}
	return fd, nil
}

func exchangeOf(fd int) (*exchange, error) {
	file := os.NewFile(uintptr(fd), "ssad.sock")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, faulty(err.Error())
	}
	return &exchange{file, raw}, nil
}

// openLocally connects to ssad for a request that waits for nobody else, until the deadline at most.
func openLocally(deadline time.Time) (*exchange, error) {
	latest := time.Now().Add(local)
	if deadline.IsZero() || deadline.After(latest) {
		deadline = latest
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	x, err := openExchange(ctx)
	if err == nil {
		err = x.file.SetDeadline(deadline)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = silent()
	}
	return x, err
}

// openAtOnce connects to ssad if that needs no waiting.
func openAtOnce() (*exchange, error) {
	path := runDirectory() + "/ssad.sock"
	fd, err := daemonSocket()
	if err != nil {
		return nil, err
	}
	if err := connectOnce(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		syscall.Close(fd)
		return nil, explainNoDaemon(err, path)
	}
	return exchangeOf(fd)
}

var queue = make(chan struct{}, inQueue)

// connectWithin is connect(2). A full queue of ssad's is EAGAIN at once for a socket that does not block (unix(7)). So
// the socket blocks then, for a moment at a time, in one of a few threads.
func connectWithin(ctx context.Context, fd int, address syscall.Sockaddr) error {
	err := connectOnce(fd, address)
	if err != syscall.EAGAIN {
		return err
	}
	select {
	case queue <- struct{}{}:
		defer func() { <-queue }()
	case <-ctx.Done():
		return ctx.Err()
	}
	interval := syscall.NsecToTimeval(queueWait.Nanoseconds())
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &interval); err != nil {
		return err
	}
	if err := syscall.SetNonblock(fd, false); err != nil {
		return err
	}
	for err == syscall.EAGAIN && ctx.Err() == nil {
		err = connectOnce(fd, address)
	}
	if err == syscall.EAGAIN {
		return ctx.Err()
	}
	return err
}

func connectOnce(fd int, address syscall.Sockaddr) error {
	for {
		if err := syscall.Connect(fd, address); err != syscall.EINTR {
			return err
		}
	}
}

func explainNoDaemon(err error, path string) error {
	switch err {
	case syscall.ENOENT, syscall.ECONNREFUSED:
		return &Error{
			Errno: syscall.ECONNREFUSED, Fault: faultSystem, temporary: true, Text: "no ssad listens at " + path,
			Advice: "Start it with `ssad` (as root); for your own daemon: `ssad --user`, then eval \"$(ssa env)\"",
		}
	case syscall.EINVAL:
		return &Error{Errno: syscall.ENAMETOOLONG, Fault: faultCaller, Text: "SSA_RUN_DIR is longer than the address of a socket", Detail: path}
	}
	if _, isErrno := err.(syscall.Errno); isErrno {
		return systemError(err, "the ssad at "+path+" cannot be reached")
	}
	return err // the context's
}

func systemError(err error, what string) *Error {
	number, ok := err.(syscall.Errno)
	if !ok {
		number = syscall.EIO
	}
	return &Error{Errno: number, Fault: faultSystem, Text: what, Detail: err.Error()}
}

func gone() *Error {
	return faulty("it went away in the middle of the request")
}

func silent() *Error {
	return &Error{Errno: syscall.ETIMEDOUT, Fault: faultSystem, Text: "the ssad that was asked does not answer; is it stopped?"}
}

func (x *exchange) close() {
	x.file.Close()
}

// obey has a context end what waits for ssad. The function that it returns has to be called; it gives the context's
// error, if that has ended.
func (x *exchange) obey(ctx context.Context) func() {
	if ctx.Done() == nil {
		return func() {}
	}
	stop := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Add(1)
	go func() {
		defer waiting.Done()
		select {
		case <-ctx.Done():
			x.file.SetDeadline(aLongTimeAgo)
		case <-stop:
		}
	}()
	return func() {
		close(stop)
		waiting.Wait()
	}
}

// tell sends a request with descriptors.
func (x *exchange) tell(asked *request, descriptors ...int) error {
	packet, err := asked.packet()
	if err != nil {
		return err
	}
	var rights []byte
	if len(descriptors) > 0 {
		rights = syscall.UnixRights(descriptors...)
	}
	failed := x.raw.Write(func(fd uintptr) bool {
		for {
			_, err = syscall.SendmsgN(int(fd), packet, rights, nil, syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT)
			if err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	if failed != nil {
		return waitError(failed)
	}
	if err == syscall.EPIPE || err == syscall.ECONNRESET {
		return x.lastWords(err.(syscall.Errno))
	}
	if err != nil {
		return systemError(err, "ssad takes no request")
	}
	return nil
}

// lastWords is why ssad has hung up: what it said before, if it said anything.
func (x *exchange) lastWords(number syscall.Errno) error {
	x.file.SetReadDeadline(time.Now().Add(grace)) // what it has said is there
	_, passed, err := x.hear()
	closeAll(passed)
	if told, ok := err.(*Error); ok && told.Reason != "" {
		return told
	}
	return &Error{Errno: number, Fault: faultSystem, Text: "the ssad that was asked has gone", temporary: true}
}

// waitError is what is said of a wait that ended before ssad did anything.
func waitError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return silent()
	}
	return err
}

// A packet has room for one byte more than a reply can have.
var packets = sync.Pool{New: func() any { return new([maxReply + 1]byte) }}

// hear receives a reply and the descriptors with it. They are the caller's where err is nil, or else closed.
func (x *exchange) hear() (reply, []int, error) {
	packet := packets.Get().(*[maxReply + 1]byte)
	defer packets.Put(packet)
	control := make([]byte, syscall.CmsgSpace(mostPassed*4))
	var size, controlSize, flags int
	var err error
	failed := x.raw.Read(func(fd uintptr) bool {
		for {
			size, controlSize, flags, _, err = syscall.Recvmsg(int(fd), packet[:], control, syscall.MSG_CMSG_CLOEXEC|syscall.MSG_DONTWAIT)
			if err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	switch {
	case failed != nil:
		return nil, nil, waitError(failed)
	case err == syscall.ECONNRESET:
		return nil, nil, &Error{Errno: syscall.ECONNRESET, Fault: faultSystem, Text: "the ssad that was asked has gone"}
	case err != nil:
		return nil, nil, systemError(err, "ssad cannot be heard")
	}
	passed := passedIn(control[:controlSize])
	told, err := readPacketUntrusted(append([]byte(nil), packet[:size]...), flags)
	if err != nil {
		closeAll(passed)
		return told, nil, err
	}
	return told, passed, nil
}

func readPacketUntrusted(packet []byte, flags int) (reply, error) {
	switch {
	case flags&syscall.MSG_CTRUNC != 0:
		return nil, &Error{
			Errno: syscall.EMFILE, Fault: faultCaller,
			Text: "ssad's reply brings more descriptors than there is room for",
		}
	case len(packet) == 0:
		return nil, gone()
	}
	told, err := readReplyUntrusted(packet)
	if err == nil {
		err = told.refusal()
	}
	return told, err
}

func passedIn(control []byte) []int {
	var passed []int
	messages, _ := syscall.ParseSocketControlMessage(control) // an error: of what is no message
	for at := range messages {
		if some, err := syscall.ParseUnixRights(&messages[at]); err == nil {
			passed = append(passed, some...)
		}
	}
	return passed
}

func closeAll(descriptors []int) {
	for _, fd := range descriptors {
		syscall.Close(fd)
	}
}

// ask sends a request about a socket and gives the reply. No descriptors come of it.
func (x *exchange) ask(asked *request, descriptors ...int) (reply, error) {
	if err := x.tell(asked, descriptors...); err != nil {
		return nil, err
	}
	told, passed, err := x.hear()
	closeAll(passed)
	return told, err
}

// --- where ssad is ---

// runDirectory is SSA_RUN_DIR, or /run/ssa. A program with more rights than its user passes over the environment.
func runDirectory() string {
	if directory := os.Getenv("SSA_RUN_DIR"); directory != "" && !isPrivileged() {
		return directory
	}
	return "/run/ssa"
}

const atSecure = 23 // AT_SECURE of getauxval(3)

var privilegedOnce sync.Once
var privileged bool

func isPrivileged() bool {
	privilegedOnce.Do(func() { privileged = hasMoreRights() })
	return privileged
}

// hasMoreRights asks what the kernel told the process at its start: setuid, setgid or file capabilities.
func hasMoreRights() bool {
	vector, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid()
	}
	for ; len(vector) >= 2*wordSize; vector = vector[2*wordSize:] {
		if word(vector) == atSecure {
			return word(vector[wordSize:]) != 0
		}
	}
	return true // it says so on each Linux
}

const wordSize = 4 << (^uint(0) >> 63) // bytes of a C long

func word(data []byte) uint64 {
	if wordSize == u64Size {
		return native.Uint64(data)
	}
	return uint64(native.Uint32(data))
}
