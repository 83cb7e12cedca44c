package build

import (
	"context"
	"errors"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

func buildDebian(context.Context, *job) (image.Spec, error) {
	return image.Spec{}, errors.New("not yet")
}
