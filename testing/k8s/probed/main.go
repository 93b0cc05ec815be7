// Command probed is an application that can be probed in every way that
// Kubernetes has: HTTP and gRPC on ports of their own, TCP on both, and exec with
// the argument "check". It counts the requests for /count, in memory. On a third
// port it echoes lines, on others after /listen; /dial makes it connect to a server;
// /conversations tells what became of these connections. With BIND set it listens at that
// address only.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	httpPort = ":8080"
	grpcPort = ":9090"
)

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "check" {
		err = check()
	} else {
		err = serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "probed:", err)
		os.Exit(1)
	}
}

// check is an exec probe: it asks the server over the loopback interface.
func check() error {
	r, err := http.Get("http://127.0.0.1" + httpPort + "/healthz")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", r.Status)
	}
	return nil
}

// listen listens without Multipath TCP, which CRIU can't dump.
func listen(addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), "tcp", addr)
}

// serve serves until something fails.
func serve() error {
	var ls [3]net.Listener
	for i, port := range []string{httpPort, grpcPort, talkPort} {
		l, err := listen(os.Getenv("BIND") + port)
		if err != nil {
			return err
		}
		ls[i] = l
	}
	web, rpc, talk := ls[0], ls[1], ls[2]
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	var cs conversations
	failed := make(chan error, len(ls))
	go func() { failed <- server.Serve(rpc) }()
	go func() { failed <- http.Serve(web, handler(&cs)) }()
	go func() { failed <- cs.accept(talk) }()
	fmt.Println("probed serves", httpPort, grpcPort)
	return <-failed
}

func handler(cs *conversations) http.Handler {
	var count atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/dial", cs.dial)
	mux.HandleFunc("/listen", cs.listen)
	mux.HandleFunc("/conversations", cs.report)
	mux.HandleFunc("/count", func(w http.ResponseWriter, _ *http.Request) {
		n := count.Add(1)
		fmt.Println("count", n)
		fmt.Fprintln(w, n)
	})
	return mux
}
