// Package consume reads a pool's lanes in one consumer group, hands each record
// out once per assignment as a Delivery, and commits what has been settled.
//
// Delivery promise: at least once. Work finishes out of order; what is
// committed per partition is the settled watermark (every offset below it is
// settled) plus, in the commit's metadata, a bitmap of the settled offsets above
// it. A restart replays exactly the offsets that were not settled at the last
// commit. Nothing is ever committed for a partition that has been taken away.
package consume
