//go:build !linux

package falcon

import "errors"

func runAgent([]string) int { return failed(errors.New("the guest agent is for Linux guests")) }
