//go:build !linux

package admin

import (
	"errors"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

func openSerial(string) (softnpu.Stream, error) {
	return nil, errors.New("npuadm knows the serial ports of Linux only: in an illumos guest use scadm")
}
