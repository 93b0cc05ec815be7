package egress

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// Conf is nginx's configuration. It passes the bank's own date on: what nginx
// would write by its clock could not come out the same a second time.
func Conf(bank netip.AddrPort) string {
	return fmt.Sprintf(`daemon off; worker_processes 1; user root root; pid /tmp/nginx.pid; events {}
http {
  access_log off; keepalive_timeout 1h; keepalive_requests 100000000;
  upstream bank { server %s; keepalive 8; keepalive_requests 50; }
  server {
    listen 80;
    location / {
      proxy_pass http://bank; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_pass_header Date;
    }
  }
}
`, bank)
}

// Command is what runs nginx with a configuration.
func Command(conf string) []string {
	return []string{"sh", "-c", `printf %s "$1" >/tmp/n.conf; exec nginx -e stderr -c /tmp/n.conf`, "sh", conf}
}

// start runs the teller in a container.
func start(ctx context.Context, e *env.Env, o Options) error {
	bank := Target(e.Pod().ClientIP4)
	c := env.Container{
		ID: containerID, Netns: e.Pod().Path,
		Annotations: map[string]string{
			"crsc.io/checkpoint-restore":  "true",
			"crsc.io/checkpoint-interval": o.Interval.String(),
			"crsc.io/recovery-budget":     "unlimited",
		},
		Args: Command(Conf(bank)),
	}
	image := "nginx"
	if o.Teller != Nginx {
		app, err := build(ctx, e)
		if err != nil {
			return err
		}
		image = "busybox"
		c.Args = []string{"/app", "-bank=" + string(o.Teller), fmt.Sprintf("-idle=%d", o.Idle), fmt.Sprintf("-most=%d", o.Most),
			fmt.Sprintf("-beat=%v", o.Beat), "-beat-id=" + beatPrefix, bank.String()}
		c.Flags = []string{"--mount=type=bind,src=" + app + ",dst=/app,options=rbind:ro"}
	}
	var err error
	if c.Image, err = ociimage.Import(ctx, e, image); err != nil {
		return err
	}
	return e.Run(ctx, c)
}

// build makes the program of the tellers that have a pool.
func build(ctx context.Context, e *env.Env) (string, error) {
	app := filepath.Join(e.Dir, "teller")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", app, "./testing/egress/teller")
	cmd.Dir = e.Root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the teller: %w: %s", err, out)
	}
	return app, nil
}
