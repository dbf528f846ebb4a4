package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"ssa"
)

func init() {
	programs["state"] = state
	programs["state-server"] = stateServer
	programs["options"] = options
}

func show(conn *ssa.Conn) {
	told := conn.ConnectionState()
	fmt.Println(told.Version == tls.VersionTLS13, tls.CipherSuiteName(told.CipherSuite), told.NegotiatedProtocol,
		told.ServerName, told.HandshakeComplete)
	fmt.Printf("%q %v\n", conn.PeerIdentity(), conn.Relayed())
	for _, certificate := range told.PeerCertificates {
		fmt.Println(certificate.SerialNumber, certificate.DNSNames)
	}
	_, err := os.Stat(fmt.Sprintf("%s/sockets/%d", os.Getenv("SSA_MOUNT"), conn.ID()))
	fmt.Println(err)
}

// state says what is known of a connection to a server.
func state() error {
	conn, err := ssa.Dial("tcp", address(), &ssa.Config{NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		return err
	}
	defer conn.Close()
	show(conn)
	return nil
}

// stateServer says what is known of a client that has to have a certificate, and serves nobody who has none.
func stateServer() error {
	listener, err := ssa.Listen("tcp", "127.0.0.1:0", &ssa.Config{
		CertificateFiles: []string{os.Getenv("CERTIFICATE")}, KeyFiles: []string{os.Getenv("KEY")},
		ClientAuth: ssa.RequireClientCert, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	show(conn.(*ssa.Conn))
	return nil
}

// options says what becomes of some that cannot be.
func options() error {
	fds, goroutines := warm()
	for _, row := range []struct {
		what   string
		config ssa.Config
	}{
		{"good", ssa.Config{NextProtos: []string{"h2"}, TrustedFiles: []string{os.Getenv("CA")}, SessionTTL: time.Minute}},
		{"loosens", ssa.Config{SessionTTL: 1e9 * time.Second}},
		{"no protocol", ssa.Config{NextProtos: []string{""}}},
		{"no version", ssa.Config{MinVersion: tls.VersionTLS11}},
		{"no file", ssa.Config{TrustedFiles: []string{"/no/such/file"}}},
		{"a fifo", ssa.Config{TrustedFiles: []string{os.Getenv("FIFO")}}},
		{"a directory", ssa.Config{TrustedFiles: []string{"/"}}},
		{"no certificate", ssa.Config{CertificateFiles: []string{os.Getenv("KEY")}}},
		{"no suite", ssa.Config{DisabledCiphers: []string{"TLS_NO_SUCH"}}},
		{"not ASCII", ssa.Config{ServerName: "b\u00fccher.example"}},
	} {
		err := row.config.Check(context.Background())
		var told *ssa.Error
		errors.As(err, &told)
		if told == nil {
			told = new(ssa.Error)
		}
		fmt.Println(row.what, errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EINVAL), errors.Is(err, os.ErrNotExist),
			err == nil, told.Fault)
	}
	if _, err := ssa.Dial("unix", "localhost:1", nil); err != nil {
		fmt.Println(err)
	}
	if _, err := ssa.Dial("tcp", "localhost", nil); err != nil {
		fmt.Println(err)
	}
	unix, err := net.Listen("unix", os.Getenv("SOCKET"))
	if err != nil {
		return err
	}
	if _, err := ssa.NewListener(unix, nil); err != nil {
		fmt.Println(errors.Is(err, syscall.ENOTSOCK))
	}
	unix.Close()
	fmt.Println(settled(fds, goroutines))
	return nil
}
