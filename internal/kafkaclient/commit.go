package kafkaclient

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrNoMember is returned when a client that should commit is in no group now.
var ErrNoMember = errors.New("not a member of the group")

// MemberCommit returns a commit, without offsets yet, in the name of the member
// that cl is and of the generation it is in, so that the broker refuses it once
// their time is over. Topics need name and id: with an id the commit cannot
// reach a topic that was made anew.
//
// The client's own commits are not used because they wait, under a lock, for a
// rebalance to end.
func MemberCommit(cl *kgo.Client, group string) (*kmsg.OffsetCommitRequest, error) {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = group
	req.MemberID, req.Generation = cl.GroupMetadata()
	if req.MemberID == "" || req.Generation < 0 { // a broker takes that for a commit from outside the group
		return nil, fmt.Errorf("commit offsets of %s: %w", group, ErrNoMember)
	}
	return req, nil
}

// Commit sends a commit to the group's coordinator and checks the answer for
// each partition. Any error means that some of it was not, or may not have
// been, committed.
func Commit(ctx context.Context, cl *kgo.Client, req *kmsg.OffsetCommitRequest) error {
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("commit offsets of %s: %w", req.Group, err)
	}
	var errs []error
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				errs = append(errs, fmt.Errorf("commit offset of %s, partition %d: %w", req.Group, p.Partition, err))
			}
		}
	}
	return errors.Join(errs...)
}
