// The command program is what runs in the images of package critest, under the
// names that the suite's specs call: nginx and httpd serve a page (on the port
// that is the argument), pause holds a sandbox, nnp tells its effective user
// ID, ipcs, pgrep and stress are what the host's BusyBox lacks.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "nginx", "httpd":
		serve(name)
	case "nnp":
		fmt.Printf("Effective uid: %d\n", os.Geteuid())
	case "ipcs":
		shm, err := os.ReadFile("/proc/sysvipc/shm")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s", shm)
	case "pgrep":
		os.Exit(pgrep(os.Args[1]))
	case "pause":
		pause()
	case "stress":
		stress()
	default:
		log.Fatalf("unknown name %s", name)
	}
}

// title is what the specs look for in nginx's command line; exec is how a Go
// program gets one.
const title = "master process"

func serve(name string) {
	if len(os.Args) != 3 {
		port := "80"
		if len(os.Args) == 2 {
			port = os.Args[1]
		}
		log.Fatal(syscall.Exec("/server/"+name, []string{name, port, title}, os.Environ()))
	}
	if err := os.WriteFile("/var/run/"+name+".pid", fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		log.Fatal(err)
	}
	log.Printf("%s serves port %s", name, os.Args[1])
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })
	log.Fatal(http.ListenAndServe(":"+os.Args[1], nil))
}

// pgrep prints the processes whose name contains a text; 1 means none, as with
// pgrep(1).
func pgrep(text string) int {
	found := 1
	all, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, file := range all {
		comm, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(comm), text) {
			fmt.Println(filepath.Base(filepath.Dir(file)))
			found = 0
		}
	}
	return found
}

// stress takes 110 MB of memory for half a minute, as "stress -m 1 --vm-bytes
// 100M --vm-hang 0 -t 30" does, with what a program has besides.
func stress() {
	b := make([]byte, 110<<20)
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	time.Sleep(30 * time.Second)
	runtime.KeepAlive(b)
}

// pause reaps what is left in a shared PID namespace until it is told to end.
func pause() {
	end, child := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	signal.Notify(child, syscall.SIGCHLD)
	for {
		select {
		case <-end:
			return
		case <-child:
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
	}
}
