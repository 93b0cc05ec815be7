package journal

import "fmt"

// Durability is the class of failure that committed records survive. The
// values are part of the format.
type Durability uint8

const (
	// Memory keeps committed records in this process and writes them later:
	// they survive the container.
	Memory Durability = 1
	// PageCache hands committed records to the kernel with write(2): they
	// survive this process. It is the default.
	PageCache Durability = 2
	// Disk also calls fdatasync(2): committed records survive the host.
	Disk Durability = 3
)

// String returns the name that ParseDurability accepts.
func (d Durability) String() string {
	switch d {
	case Memory:
		return "memory"
	case PageCache:
		return "page-cache"
	case Disk:
		return "disk"
	}
	return fmt.Sprintf("durability(%d)", uint8(d))
}

// ParseDurability returns the class named "memory", "page-cache" or "disk".
func ParseDurability(s string) (Durability, error) {
	for d := Memory; d <= Disk; d++ {
		if s == d.String() {
			return d, nil
		}
	}
	return 0, fmt.Errorf("durability %q: want memory, page-cache or disk", s)
}
