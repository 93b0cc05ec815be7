// Package journalbench measures the journal by itself: how fast it takes
// records, what a record allocates, what recycling segment files is worth, and
// how its group commit compares with the disk's own fdatasync(2).
//
// What is compared is measured in turn, round by round, in directories side by
// side on the file system of the benchmark's environment. The journal's load is
// that of the proxy's loop: batches of a turn's records, trimmed as checkpoints
// trim.
package journalbench
