package ssacaddy

import (
	"net"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
	"ssa"
)

func init() {
	caddy.RegisterModule(ListenerWrapper{})
	caddy.RegisterModule(Transport{})
}

// ListenerWrapper has ssad make the TLS of a server's connections. Caddy sees plain HTTP: its own TLS has to be off.
type ListenerWrapper struct {
	Options

	logger *zap.Logger
}

// CaddyModule names the module.
func (ListenerWrapper) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.listeners.ssa", New: func() caddy.Module { return new(ListenerWrapper) }}
}

// UnmarshalCaddyfile reads "ssa" with a block of options, or none.
func (w *ListenerWrapper) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for d.Next() {
		if d.NextArg() {
			return d.ArgErr()
		}
		for d.NextBlock(d.Nesting()) {
			name := d.Val()
			if known, err := w.option(d); err != nil {
				return err
			} else if !known {
				return d.Errf("ssa has no option %s", name)
			}
		}
	}
	return nil
}

// Provision tries whether ssad would serve so. Caddy refuses the configuration where it would not, in ssad's words.
func (w *ListenerWrapper) Provision(ctx caddy.Context) error {
	w.logger = ctx.Logger()
	if len(w.ALPN) == 0 {
		w.ALPN = []string{"http/1.1"}
	}
	if err := w.check(); err != nil {
		return err
	}
	if err := w.config().Check(ctx); err != nil {
		return err
	}
	trial, err := ssa.Listen("tcp", "127.0.0.1:0", w.config())
	if err != nil {
		return err
	}
	return trial.Close()
}

// WrapListener has ssad serve the listener.
func (w *ListenerWrapper) WrapListener(inner net.Listener) net.Listener {
	wrapped := &lazyListener{Listener: inner, config: w.config(), logger: w.logger}
	if _, err := wrapped.begun(); err != nil {
		w.logger.Error("ssad does not serve this listener yet", zap.String("address", inner.Addr().String()), zap.Error(err))
	}
	return wrapped
}

// A lazyListener begins when ssad is there: at its start as a rule. An Accept before is told so by an error that is
// temporary, and net/http tries again.
type lazyListener struct {
	net.Listener
	config *ssa.Config
	logger *zap.Logger
	mutex  sync.Mutex
	tls    *ssa.Listener
	closed bool
}

func (l *lazyListener) begun() (*ssa.Listener, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.closed {
		return nil, net.ErrClosed
	}
	if l.tls != nil {
		return l.tls, nil
	}
	begun, err := ssa.NewListener(l.Listener, l.config)
	if err != nil {
		return nil, temporary{err}
	}
	l.tls = begun
	return begun, nil
}

type temporary struct{ error }

func (temporary) Timeout() bool { return false }

func (temporary) Temporary() bool { return true }

func (e temporary) Unwrap() error { return e.error }

func (l *lazyListener) Accept() (net.Conn, error) {
	begun, err := l.begun()
	if err != nil {
		return nil, err
	}
	return begun.Accept()
}

func (l *lazyListener) Close() error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.closed = true
	if l.tls != nil {
		return l.tls.Close()
	}
	return l.Listener.Close()
}

var (
	_ caddy.Provisioner     = (*ListenerWrapper)(nil)
	_ caddy.ListenerWrapper = (*ListenerWrapper)(nil)
	_ caddyfile.Unmarshaler = (*ListenerWrapper)(nil)
	_ net.Error             = temporary{}
)
