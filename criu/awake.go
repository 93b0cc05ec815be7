package criu

import "os"

// latencyFile takes, from whoever holds it open, the longest time in which a
// processor has to wake, as a 32-bit number of microseconds (the kernel's
// Documentation/power/pm_qos_interface.rst). Closing it, or dying, takes the
// wish back.
const latencyFile = "/dev/cpu_dma_latency"

// stayAwake keeps processors that have nothing to do from sleeping, until the
// returned function is called. While tasks are frozen CRIU and they hand the
// turn to each other about a hundred times, and on an idle machine every time
// to a processor that sleeps: 15 to 35 µs each in a virtual machine, 3 to 5 when
// it does not. Without the right to it, or the file, they sleep.
func stayAwake() (stop func()) {
	f, err := os.OpenFile(latencyFile, os.O_WRONLY, 0)
	if err != nil {
		return func() {}
	}
	// A kernel that refuses leaves it as it was.
	_, _ = f.Write(make([]byte, 4))
	return func() { f.Close() }
}
