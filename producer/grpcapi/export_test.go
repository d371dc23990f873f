package grpcapi

import (
	"google.golang.org/grpc/codes"

	"github.com/penstock/penstock/schema/fault"
)

// CodeOf is codeOf for tests.
func CodeOf(c fault.Code) codes.Code { return codeOf(c) }
