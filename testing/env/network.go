package env

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	inside "github.com/crsc-io/crsc/netproxy/netns"
)

// netnsDir is where ip(8) keeps named network namespaces.
const netnsDir = "/run/netns"

// nsfsMagic is NSFS_MAGIC of linux/magic.h.
const nsfsMagic = 0x6e736673

// Netns is one network namespace, and the addresses of a pod in it.
type Netns struct {
	Name                 string // as ip(8) knows it
	Path                 string // for ctr run --with-ns network:PATH
	IP4, IP6             netip.Addr
	ClientIP4, ClientIP6 netip.Addr // the clients' end of the same link
}

// netns computes the names and addresses of pod number n.
func (e *Env) netns(name string, n byte) *Netns {
	ip4 := func(host byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, n, host}) }
	ip6 := func(host byte) netip.Addr {
		return netip.AddrFrom16([16]byte{0xfd, 0xc5, 0xc0, 0x00, 0, n, 15: host})
	}
	full := e.Name + "-" + name
	return &Netns{
		Name: full, Path: filepath.Join(netnsDir, full),
		IP4: ip4(2), IP6: ip6(2), ClientIP4: ip4(1), ClientIP6: ip6(1),
	}
}

// Client is the namespace of the clients. Its addresses are those of the link
// to the first pod.
func (e *Env) Client() *Netns { return e.netns("client", 1) }

// Pod is the first pod's namespace.
func (e *Env) Pod() *Netns { return e.netns("pod", 1) }

// MakePod makes a further pod namespace; an existing one is returned as it is.
func (e *Env) MakePod(name string) (*Netns, error) {
	unlock, err := e.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return e.makePod(name)
}

// RemovePod removes a pod's namespace and its link. Processes in it live on in
// a namespace without a name.
func (e *Env) RemovePod(name string) error {
	unlock, err := e.lock()
	if err != nil {
		return err
	}
	defer unlock()
	pods, err := e.pods()
	if err != nil {
		return err
	}
	// The kernel removes the link with the namespace, but not at once, and not
	// while a process lives in it; the next pod may get the same number.
	if n, known := pods[name]; known {
		if err := e.unjoin(n); err != nil {
			return fmt.Errorf("pod %s: %w", name, err)
		}
	}
	if err := removeNetns(e.netns(name, 0).Name); err != nil {
		return err
	}
	delete(pods, name)
	return e.writePods(pods)
}

// makeClient makes the clients' namespace, which routes between the pods.
// tcp_tw_reuse lets clients that come and go reuse a port after a second; there
// would be none left after 28,000 connections within a minute.
func (e *Env) makeClient() error {
	if err := newNetns(e.Client().Name); err != nil {
		return err
	}
	return InNetns(e.Client().Path, func() error {
		for _, knob := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/tcp_tw_reuse"} {
			if err := os.WriteFile("/proc/sys/net/"+knob, []byte("1"), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *Env) makePod(name string) (*Netns, error) {
	pods, err := e.pods()
	if err != nil {
		return nil, err
	}
	n, known := pods[name]
	if known && isNetns(e.netns(name, n).Path) {
		return e.netns(name, n), nil
	}
	if !known {
		used := map[byte]bool{}
		for _, i := range pods {
			used[i] = true
		}
		for n = 1; used[n]; n++ {
			if n == 255 {
				return nil, errors.New("all 255 pod networks are in use")
			}
		}
	}
	// Recorded first: Down then also finds a pod that was half made.
	pods[name] = n
	if err := e.writePods(pods); err != nil {
		return nil, err
	}
	pod := e.netns(name, n)
	if err := newNetns(pod.Name); err != nil {
		return nil, err
	}
	if err := e.join(pod, n); err != nil {
		return nil, errors.Join(fmt.Errorf("pod %s: %w", name, err), removeNetns(pod.Name))
	}
	return pod, nil
}

// join makes the veth pair between the clients and a pod.
func (e *Env) join(pod *Netns, n byte) error {
	client, err := netns.GetFromPath(e.Client().Path)
	if err != nil {
		return err
	}
	defer client.Close()
	inside, err := netns.GetFromPath(pod.Path)
	if err != nil {
		return err
	}
	defer inside.Close()
	near, err := netlink.NewHandleAt(client)
	if err != nil {
		return err
	}
	defer near.Close()
	far, err := netlink.NewHandleAt(inside)
	if err != nil {
		return err
	}
	defer far.Close()

	link := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: fmt.Sprintf("pod%d", n)},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsFd(int(inside)),
	}
	if err := near.LinkAdd(link); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	if err := configure(near, link.Name, pod.ClientIP4, pod.ClientIP6); err != nil {
		return err
	}
	if err := configure(far, "eth0", pod.IP4, pod.IP6); err != nil {
		return err
	}
	for _, gateway := range []netip.Addr{pod.ClientIP4, pod.ClientIP6} {
		if err := far.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("default route via %s: %w", gateway, err)
		}
	}
	return nil
}

// unjoin removes the veth pair of pod number n; an absent one is no error.
func (e *Env) unjoin(n byte) error {
	client, err := netns.GetFromPath(e.Client().Path)
	if err != nil {
		return err
	}
	defer client.Close()
	near, err := netlink.NewHandleAt(client)
	if err != nil {
		return err
	}
	defer near.Close()
	link, err := near.LinkByName(fmt.Sprintf("pod%d", n))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	return near.LinkDel(link)
}

// configure gives a link its addresses and sets it up.
func configure(h *netlink.Handle, name string, addrs ...netip.Addr) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		bits := 24
		// Without duplicate address detection the address works at once.
		addr := &netlink.Addr{}
		if a.Is6() {
			bits, addr.Flags = 64, unix.IFA_F_NODAD
		}
		addr.IPNet = &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	return h.LinkSetUp(link)
}

// newNetns makes a named namespace with a working loopback device. The thread
// that made it is thrown away with the goroutine.
func newNetns(name string) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			h, err := netns.NewNamed(name)
			if err != nil {
				return fmt.Errorf("network namespace %s: %w", name, err)
			}
			defer h.Close()
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.LinkSetUp(lo)
		}()
	}()
	return <-done
}

// InNetns runs f in a network namespace, given by its path.
func InNetns(path string, f func() error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer file.Close()
	return inside.Do(int(file.Fd()), f)
}

// removeNetns unmounts and removes a name; an absent one is no error.
func removeNetns(name string) error {
	path := filepath.Join(netnsDir, name)
	for isNetns(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func isNetns(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == nsfsMagic
}

func (e *Env) podsFile() string { return filepath.Join(e.Dir, "pods.json") }

// pods returns the number of each pod's network by its name.
func (e *Env) pods() (map[string]byte, error) {
	pods := map[string]byte{}
	data, err := os.ReadFile(e.podsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return pods, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &pods); err != nil {
		return nil, fmt.Errorf("%s: %w", e.podsFile(), err)
	}
	return pods, nil
}

func (e *Env) writePods(pods map[string]byte) error {
	data, err := json.Marshal(pods)
	if err != nil {
		return err
	}
	return os.WriteFile(e.podsFile(), data, 0o600)
}
