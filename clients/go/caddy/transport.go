package ssacaddy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"golang.org/x/net/http2"
	"ssa"
)

const (
	defaultDialTimeout = 3 * time.Second // as of Caddy's own transport
	keepAlive          = 30 * time.Second
	idleTimeout        = 2 * time.Minute
	mostIdle           = 32 // connections to one upstream
)

// Transport connects to upstreams by TLS that ssad makes: their certificates are verified under the administrator's
// policy, always.
type Transport struct {
	Options

	// The time for a connection with its handshake. Default: 3s.
	DialTimeout caddy.Duration `json:"dial_timeout,omitempty"`
	// The version of HTTP: "1.1", which is the default, or "2".
	Version string `json:"version,omitempty"`
	// How long to wait for the headers of a response. Default: for ever.
	ResponseHeaderTimeout caddy.Duration `json:"response_header_timeout,omitempty"`

	inner http.RoundTripper
	idle  interface{ CloseIdleConnections() }
}

// CaddyModule names the module.
func (Transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.ssa", New: func() caddy.Module { return new(Transport) }}
}

// UnmarshalCaddyfile reads "transport ssa" with a block of options, or none.
func (t *Transport) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for d.Next() {
		if d.NextArg() {
			return d.ArgErr()
		}
		for d.NextBlock(0) {
			if err := t.ownOption(d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Transport) ownOption(d *caddyfile.Dispenser) error {
	name := d.Val()
	switch name {
	case "dial_timeout":
		return duration(d, d.RemainingArgs(), &t.DialTimeout)
	case "response_header_timeout":
		return duration(d, d.RemainingArgs(), &t.ResponseHeaderTimeout)
	case "version":
		if !d.AllArgs(&t.Version) {
			return d.ArgErr()
		}
		return nil
	}
	known, err := t.option(d)
	if err == nil && !known {
		return d.Errf("ssa has no option %s", name)
	}
	return err
}

// Provision has ssad look at the options. Caddy refuses the configuration where it would not take them.
func (t *Transport) Provision(ctx caddy.Context) error {
	if err := t.check(); err != nil {
		return err
	}
	if t.ClientAuth != "" {
		return errors.New("client_auth is for listeners")
	}
	if t.DialTimeout == 0 {
		t.DialTimeout = caddy.Duration(defaultDialTimeout)
	}
	switch t.Version {
	case "", "1.1":
		t.provisionOne()
	case "2":
		t.provisionTwo()
	default:
		return &valueError{"version", t.Version, "1.1, 2"}
	}
	return t.config().Check(ctx)
}

func (t *Transport) provisionOne() {
	if len(t.ALPN) == 0 {
		t.ALPN = []string{"http/1.1"}
	}
	inner := &http.Transport{
		DialTLSContext:        t.dial,
		ResponseHeaderTimeout: time.Duration(t.ResponseHeaderTimeout),
		MaxIdleConnsPerHost:   mostIdle,
		IdleConnTimeout:       idleTimeout,
	}
	t.inner, t.idle = inner, inner
}

func (t *Transport) provisionTwo() {
	if len(t.ALPN) == 0 {
		t.ALPN = []string{"h2"}
	}
	inner := &http2.Transport{
		DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return t.dial(ctx, network, address)
		},
	}
	t.inner, t.idle = inner, inner
}

// dial connects to the upstream that Caddy has chosen for the request.
func (t *Transport) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if chosen, ok := reverseproxy.GetDialInfo(ctx); ok {
		network, address = chosen.Network, chosen.Address
	}
	dialer := ssa.Dialer{
		NetDialer: &net.Dialer{Timeout: time.Duration(t.DialTimeout), KeepAlive: keepAlive},
		Config:    t.config(),
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// RoundTrip sends a request by HTTPS.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	request.URL.Scheme = "https"
	return t.inner.RoundTrip(request)
}

// TLSEnabled is true: there is no other way.
func (t *Transport) TLSEnabled() bool { return true }

// EnableTLS is called for upstreams with "https://". Options of Caddy's own TLS are refused.
func (t *Transport) EnableTLS(base *reverseproxy.TLSConfig) error {
	if base.InsecureSkipVerify {
		return errors.New("ssa verifies every upstream: tls_insecure_skip_verify has no meaning")
	}
	return nil
}

// Cleanup closes connections that are idle.
func (t *Transport) Cleanup() error {
	if t.idle != nil {
		t.idle.CloseIdleConnections()
	}
	return nil
}

var (
	_ caddy.Provisioner         = (*Transport)(nil)
	_ caddy.CleanerUpper        = (*Transport)(nil)
	_ caddyfile.Unmarshaler     = (*Transport)(nil)
	_ http.RoundTripper         = (*Transport)(nil)
	_ reverseproxy.TLSTransport = (*Transport)(nil)
)
