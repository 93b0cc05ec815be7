// Package vfs is the narrow view of a file system that crsc's on-disk formats
// are written through, so that every one of them can be tested against failing
// disks and against crashes.
//
// There are three implementations:
//
//   - [OS] is the machine's file system. Files are private (0600), links are
//     never followed at the last two path components, and Sync is fdatasync.
//   - [MemFS] lives in memory and tells synced from unsynced data. CrashClone
//     returns what a disk could hold after a crash at this very moment.
//   - [FaultFS] wraps another FS and lets a test fail, cut short or observe
//     any operation.
//
// What a format may rely on, and MemFS models: data is durable after
// [File].Sync, a name is durable after SyncDir of its directory, unsynced data
// may survive in any combination of 512-byte blocks, and unsynced changes of
// one directory survive as a prefix, in the order they were made (all
// journaling file systems keep that order).
package vfs
