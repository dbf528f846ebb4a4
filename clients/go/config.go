package ssa

import (
	"context"
	"crypto/tls"
	"os"
	"strings"
	"syscall"
	"time"
)

// A Config has a program's own wishes for its connections. All of them are optional, and none can loosen the
// administrator's policy: what would is refused (EACCES). It must not be changed while it is in use.
//
// Files are read by ssad, from the descriptors that this process opens: what the process may not read is refused.
type Config struct {
	// ServerName is the name or the address for which a client verifies the server's certificate. Empty: the host of
	// the address that is dialed. For a server it is the one name that it serves; empty: each that there is a
	// certificate for.
	ServerName string
	// NextProtos are the application protocols (ALPN), the preferred one first.
	NextProtos []string
	// MinVersion and MaxVersion bound the version of TLS: tls.VersionTLS12, tls.VersionTLS13. 0: as the policy says.
	MinVersion, MaxVersion uint16
	// DisabledCiphers are cipher suites that are not used, by IANA's or OpenSSL's names.
	DisabledCiphers []string
	// TrustedFiles are files of trust anchors (PEM), which the peer has to satisfy besides the administrator's. An
	// empty list that is not nil trusts nobody.
	TrustedFiles []string
	// CertificateFiles are files of own certificates with their chains (PEM), KeyFiles those of their keys, in any
	// order. A server without any has the administrator's.
	CertificateFiles, KeyFiles []string
	// ClientAuth says whether a server asks its clients for a certificate.
	ClientAuth ClientAuth
	// SessionTTL is for how long a session may be resumed, in whole seconds. 0: as the policy says; less: never.
	SessionTTL time.Duration
	// HandshakeTimeout is for the handshake. The policy's holds too; 0: only that. A context's deadline holds as well.
	HandshakeTimeout time.Duration
	// Strict demands that certificates keep to RFC 5280 strictly.
	Strict bool
}

// ClientAuth says whether a server asks for a certificate of its client.
type ClientAuth uint32

const (
	// NoClientCert asks for none.
	NoClientCert ClientAuth = iota
	// RequireClientCert refuses clients without one.
	RequireClientCert
	// RequestClientCert asks for one, which is verified; a client may have none.
	RequestClientCert
)

// Check asks ssad whether it would accept these options. It connects to nobody else.
func (config *Config) Check(ctx context.Context) error {
	asked, files, err := config.request(kindCheck)
	if err != nil {
		return err
	}
	defer closeFiles(files)
	ctx, cancel := context.WithTimeout(ctx, local)
	defer cancel()
	x, err := openExchange(ctx)
	if err != nil {
		return err
	}
	defer x.close()
	defer x.obey(ctx)()
	_, err = x.ask(asked, numbers(files)...)
	return err
}

// request begins one with all these options, and opens their files.
func (config *Config) request(kind uint16) (*request, []*os.File, error) {
	asked := newRequest(kind)
	if config == nil {
		return asked, nil, nil
	}
	name := config.ServerName
	if kind != kindAccept && kind != kindListen {
		if err := asked.hostname(name); err != nil {
			return nil, nil, err
		}
	} else if name != "" {
		asked.text(attributeServerName, name)
	}
	if err := asked.options(config); err != nil {
		return nil, nil, err
	}
	files, err := asked.files(config)
	return asked, files, err
}

// hostname is for whom a server's certificate is verified. A-labels of other names are made by nobody here, and the
// resolver would have to be asked for the same.
func (r *request) hostname(name string) error {
	if !isASCII([]byte(name)) {
		return badValue("%q is not ASCII: give its A-label, which begins with xn--", name)
	}
	if name != "" {
		r.text(attributeHostname, name)
	}
	return nil
}

func (r *request) options(config *Config) error {
	if config.NextProtos != nil {
		if err := r.names(attributeALPN, config.NextProtos); err != nil {
			return err
		}
	}
	if config.DisabledCiphers != nil {
		if err := r.names(attributeDisabled, config.DisabledCiphers); err != nil {
			return err
		}
	}
	if err := r.version(attributeVersionMin, config.MinVersion); err != nil {
		return err
	}
	if err := r.version(attributeVersionMax, config.MaxVersion); err != nil {
		return err
	}
	if config.SessionTTL != 0 {
		seconds := config.SessionTTL / time.Second
		r.number(attributeSessionTTL, uint32(max(seconds, 0)))
	}
	if config.ClientAuth != NoClientCert {
		r.number(attributePeerAuth, uint32(config.ClientAuth))
	}
	r.flag(attributeStrict, config.Strict)
	return nil
}

func (r *request) version(attribute, version uint16) error {
	switch version {
	case 0:
	case tls.VersionTLS12, tls.VersionTLS13:
		r.number(attribute, uint32(version))
	default:
		return badValue("%#04x is neither TLS 1.2 nor TLS 1.3", version)
	}
	return nil
}

func max(a, b time.Duration) time.Duration {
	if a > b {
		return a
	}
	return b
}

// --- files ---

// files opens what ssad shall read: all trust anchors, then all certificates, then all keys.
func (r *request) files(config *Config) ([]*os.File, error) {
	var opened []*os.File
	for _, row := range []struct {
		attribute uint16
		paths     []string
	}{
		{attributeTrusted, config.TrustedFiles},
		{attributeCertificates, config.CertificateFiles},
		{attributeKeys, config.KeyFiles},
	} {
		if row.paths == nil {
			continue
		}
		r.number(row.attribute, uint32(len(row.paths)))
		for _, path := range row.paths {
			file, err := openRegular(path)
			if err != nil {
				closeFiles(opened)
				return nil, err
			}
			opened = append(opened, file)
		}
	}
	return opened, nil
}

// openRegular opens a file so that a FIFO makes nobody wait.
func openRegular(path string) (*os.File, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var status syscall.Stat_t
	if err = syscall.Fstat(fd, &status); err == nil && status.Mode&syscall.S_IFMT != syscall.S_IFREG {
		syscall.Close(fd)
		return nil, badValue("%q is no regular file", path)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func closeFiles(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}

// numbers are the descriptors of files that are open as long as the caller holds them.
func numbers(files []*os.File) []int {
	numbers := make([]int, len(files))
	for at, file := range files {
		numbers[at] = int(file.Fd())
	}
	return numbers
}

// hostOf is the name in an address, as a certificate has it: without the zone of a link-local address.
func hostOf(host string) string {
	if at := strings.LastIndexByte(host, '%'); at > 0 && strings.Contains(host, ":") {
		return host[:at]
	}
	return host
}
