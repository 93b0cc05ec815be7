package journal

import "hash/crc32"

// castagnoli is the polynomial that x86 and arm64 have an instruction for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mix is the finalizer of splitmix64: a bijection in which every bit of the
// input changes half of the output.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// salt distinguishes the lives of segment files: of different journals, and of
// one recycled file.
func salt(journal, seq uint64) uint64 { return mix(journal ^ mix(seq+1)) }

// checksum returns the CRC32C of a record (all but its checksum field), with
// an initial value that depends on the life of the segment and on the position:
// a record that was left over, or moved, does not pass.
func checksum(salt uint64, pos Position, rec []byte) uint32 {
	return crc32.Update(uint32(mix(salt+uint64(pos))>>32), castagnoli, rec)
}
