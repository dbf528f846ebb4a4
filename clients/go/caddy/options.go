// Package ssacaddy gives Caddy its TLS from ssad: a listener wrapper, with which it serves HTTPS by keys that it never
// sees, and a transport for its reverse proxy. Who is trusted, and with which certificate which user serves, is the
// administrator's policy. docs/go.md of ssa has how to use them.
package ssacaddy

import (
	"crypto/tls"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"ssa"
)

// Options are those of a connection. They can only tighten the administrator's policy.
type Options struct {
	// For a listener the one name that is served; for a transport the name for which the upstream's certificate is
	// verified. Default: each name that there is a certificate for; the host of the upstream's address.
	ServerName string `json:"server_name,omitempty"`
	// The application protocols, the preferred one first. Default of a listener: http/1.1. "h2" needs the server to
	// speak h2c.
	ALPN []string `json:"alpn,omitempty"`
	// The lowest version: tls1.2 or tls1.3. Default: as the policy says.
	MinVersion string `json:"min_version,omitempty"`
	// Files of trust anchors that the peer has to satisfy besides the administrator's.
	TrustedFiles []string `json:"trusted_files,omitempty"`
	// A certificate of one's own, and its key. Default: the administrator's.
	CertificateFile string `json:"certificate_file,omitempty"`
	KeyFile         string `json:"key_file,omitempty"`
	// Whether a client has to present a certificate: "require", or "request".
	ClientAuth string `json:"client_auth,omitempty"`
	// The time for a handshake. The policy's holds too.
	HandshakeTimeout caddy.Duration `json:"handshake_timeout,omitempty"`
}

var versions = map[string]uint16{"": 0, "tls1.2": tls.VersionTLS12, "tls1.3": tls.VersionTLS13}

var clientAuths = map[string]ssa.ClientAuth{
	"": ssa.NoClientCert, "require": ssa.RequireClientCert, "request": ssa.RequestClientCert,
}

func (o *Options) config() *ssa.Config {
	config := &ssa.Config{
		ServerName:       o.ServerName,
		NextProtos:       o.ALPN,
		MinVersion:       versions[o.MinVersion],
		TrustedFiles:     o.TrustedFiles,
		ClientAuth:       clientAuths[o.ClientAuth],
		HandshakeTimeout: time.Duration(o.HandshakeTimeout),
	}
	if o.CertificateFile != "" {
		config.CertificateFiles = []string{o.CertificateFile}
	}
	if o.KeyFile != "" {
		config.KeyFiles = []string{o.KeyFile}
	}
	return config
}

// option takes one of a Caddyfile. False: it is none of these.
func (o *Options) option(d *caddyfile.Dispenser) (bool, error) {
	name := d.Val()
	arguments := d.RemainingArgs()
	one := func(value *string) error {
		if len(arguments) != 1 {
			return d.ArgErr()
		}
		*value = arguments[0]
		return nil
	}
	switch name {
	case "server_name":
		return true, one(&o.ServerName)
	case "alpn":
		o.ALPN = append(o.ALPN, arguments...)
	case "trusted_files":
		o.TrustedFiles = append(o.TrustedFiles, arguments...)
	case "certificate":
		if len(arguments) != 2 {
			return true, d.ArgErr()
		}
		o.CertificateFile, o.KeyFile = arguments[0], arguments[1]
	case "min_version":
		if err := one(&o.MinVersion); err != nil {
			return true, err
		}
		if _, known := versions[o.MinVersion]; !known {
			return true, d.Errf("min_version is tls1.2 or tls1.3, and not %s", o.MinVersion)
		}
	case "client_auth":
		if err := one(&o.ClientAuth); err != nil {
			return true, err
		}
		if _, known := clientAuths[o.ClientAuth]; !known {
			return true, d.Errf("client_auth is require or request, and not %s", o.ClientAuth)
		}
	case "handshake_timeout":
		return true, duration(d, arguments, &o.HandshakeTimeout)
	default:
		return false, nil
	}
	if len(arguments) == 0 {
		return true, d.ArgErr()
	}
	return true, nil
}

func duration(d *caddyfile.Dispenser, arguments []string, value *caddy.Duration) error {
	if len(arguments) != 1 {
		return d.ArgErr()
	}
	read, err := caddy.ParseDuration(arguments[0])
	if err != nil {
		return d.Errf("%s is no duration: %v", arguments[0], err)
	}
	*value = caddy.Duration(read)
	return nil
}

// check refuses what JSON can say and a Caddyfile cannot.
func (o *Options) check() error {
	if _, known := versions[o.MinVersion]; !known {
		return &valueError{"min_version", o.MinVersion, "tls1.2, tls1.3"}
	}
	if _, known := clientAuths[o.ClientAuth]; !known {
		return &valueError{"client_auth", o.ClientAuth, "require, request"}
	}
	return nil
}

type valueError struct{ name, value, known string }

func (e *valueError) Error() string {
	return e.name + " is one of " + e.known + ", and not " + strings.TrimSpace(e.value)
}
