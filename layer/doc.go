// Package layer captures a directory tree at a checkpoint and rolls it back at
// the restore: the writable layer of a container, and the scratch tmpfs that
// take the place of its own. FORMAT.md describes what a snapshot holds.
//
//	draft, err := layer.Prepare(dir, prev, layer.Limits{}) // before the freeze
//	stats, err := draft.Capture(ctx, upper)                // tasks frozen
//	err = layer.Sync(dir)                                  // after the thaw
//	…
//	same, err := layer.Same(dir, upper)                    // tasks dead
//	stats, err = layer.Rollback(ctx, dir, upper)           // overlay unmounted
//
// RollbackAs puts the files back for other users than those whom they belonged to.
//
// The cost of a capture is a stat of everything and a copy of what changed: all
// data that a capture copies goes into one pack file, and the packs of the
// previous snapshot are hard-linked, so unchanged files cost no I/O.
//
// Invariants:
//
//   - A snapshot directory without a manifest does not exist for any function
//     here; the manifest is written last.
//   - No snapshot needs another: prev can be removed as soon as Capture
//     returned.
//   - A file is taken for unchanged only if its identity (inode, birth, ctime,
//     mtime, size, mode, owner) is the recorded one, of this boot, and can be
//     trusted. It can not be if its clock is too coarse to tell a later change,
//     if it lies on a file system where a store to a shared mapping leaves the
//     times as they are (tmpfs), or if a writer may have such a mapping of a
//     dirty page. Then the bytes decide.
//   - Rollback never opens a snapshot's file for writing and never links one
//     into the tree. It can be interrupted anywhere and run again.
//   - What a tree holds is hostile: every step goes through the descriptor of
//     the parent, one component at a time, follows no link and crosses no
//     mount.
//
// Inode numbers of files that were deleted or replaced after the capture
// change; files that were only written to keep theirs. Times of access are not
// compared. A mount point inside a tree is left alone, with what is below it.
package layer
