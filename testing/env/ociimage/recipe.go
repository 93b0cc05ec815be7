package ociimage

import (
	"errors"
	"slices"
	"strings"
)

// ErrUnknown is returned for an image that has no recipe.
var ErrUnknown = errors.New("no such image")

// recipe is everything that makes one image. Every field enters its cache key.
type recipe struct {
	name       string
	packages   []string // Debian packages; testing/env/install deb installs them
	entrypoint []string
	cmd        []string
	env        []string
	workDir    string
	user       string // uid:gid
	dirs       []dir
	files      []file
	programs   map[string]string // path in the image to one of the host
}

type dir struct {
	path     string
	mode     int64
	uid, gid int
}

type file struct {
	path string
	mode int64
	text string
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// recipes is the table of images; a further image is one further entry.
func recipes() []recipe {
	return []recipe{{
		name:       "busybox",
		entrypoint: []string{"/bin/sh"},
		workDir:    "/",
		user:       "0:0",
	}, {
		name:       "pause", // that of a pod's sandbox
		entrypoint: []string{"/bin/sleep", "2147483647"},
		workDir:    "/",
		user:       "65534:65534",
	}, {
		name:     "redis",
		packages: []string{"redis-server", "redis-tools"},
		entrypoint: []string{"redis-server", "--save", "", "--appendonly", "no",
			"--protected-mode", "no", "--bind", "*", "-::*"},
		workDir: "/data",
		user:    "0:0",
		dirs:    []dir{{"/data", 0o755, 0, 0}},
	}, {
		name:       "memcached",
		packages:   []string{"memcached"},
		entrypoint: []string{"memcached", "--threads=2"},
		workDir:    "/",
		user:       "999:999",
	}, {
		name:       "nginx",
		packages:   []string{"nginx"},
		entrypoint: []string{"nginx", "-e", "stderr", "-c", "/etc/crsc-nginx.conf"},
		workDir:    "/srv",
		user:       "0:0",
		dirs: []dir{{"/srv", 0o755, 0, 0}, {"/var/lib/nginx", 0o755, 999, 999},
			{"/var/log/nginx", 0o755, 999, 999}},
		files: []file{{"/srv/index.html", 0o644, "crsc\n"}, {"/etc/crsc-nginx.conf", 0o644, nginxConf}},
	}, {
		name:       "nghttpd",
		packages:   []string{"nghttp2-server"},
		entrypoint: []string{"nghttpd", "--no-tls", "-d", "/srv", "8080"},
		workDir:    "/srv",
		user:       "0:0",
		dirs:       []dir{{"/srv", 0o755, 0, 0}},
		files:      []file{{"/srv/blob", 0o644, strings.Repeat("HTTP/2 ", 2000)}},
	}, {
		name:       "iperf3",
		packages:   []string{"iperf3"},
		entrypoint: []string{"iperf3", "--server"},
		workDir:    "/",
		user:       "0:0",
	}, {
		name:       "python",
		packages:   []string{"python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"},
		entrypoint: []string{"python3.11"},
		env:        []string{"PYTHONDONTWRITEBYTECODE=1", "PYTHONHASHSEED=0"},
		workDir:    "/",
		user:       "0:0",
	}, {
		name:       "postgresql",
		packages:   []string{"postgresql-15"},
		entrypoint: []string{"/bin/sh", "/usr/local/bin/start-postgresql"},
		env:        []string{"PGDATA=/data/pg", "LC_ALL=C"},
		workDir:    "/data",
		user:       "999:999",
		dirs:       []dir{{"/data", 0o700, 999, 999}, {"/var/run/postgresql", 0o775, 999, 999}},
		files:      []file{{"/usr/local/bin/start-postgresql", 0o755, postgresStart}},
	}}
}

const nginxConf = `daemon off;
worker_processes 2;
pid /tmp/nginx.pid;
user app app;
events {}
http {
  access_log /dev/stdout;
  server { listen 80; listen [::]:80; root /srv; }
}
`

const postgresStart = `set -e
bin=/usr/lib/postgresql/15/bin
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  $bin/initdb --auth=trust --username=postgres --no-sync >/dev/null
  echo "host all all all trust" >>"$PGDATA/pg_hba.conf"
fi
exec $bin/postgres -c listen_addresses='*' "$@"
`

// common is in every image: names for the users, and places to write.
func common() recipe {
	return recipe{
		packages: []string{"busybox-static"},
		env:      []string{defaultPath},
		dirs: []dir{
			{"/dev", 0o755, 0, 0}, {"/proc", 0o555, 0, 0}, {"/sys", 0o555, 0, 0},
			{"/etc", 0o755, 0, 0}, {"/run", 0o755, 0, 0}, {"/root", 0o700, 0, 0},
			{"/tmp", 0o1777, 0, 0}, {"/var/tmp", 0o1777, 0, 0},
		},
		files: []file{
			{"/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\napp:x:999:999:app:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
			{"/etc/group", 0o644, "root:x:0:\napp:x:999:\nnogroup:x:65534:\n"},
			{"/etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n"},
			{"/etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files\n"},
		},
	}
}

// Names lists the images, separated by blanks.
func Names() string {
	var names []string
	for _, r := range recipes() {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
