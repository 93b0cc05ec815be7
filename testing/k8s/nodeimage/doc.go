// Package nodeimage describes the image of the DaemonSet in deploy/: crsc-node,
// and below /usr/local/lib/crsc what it puts onto a node.
package nodeimage
