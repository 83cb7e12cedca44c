package image

import "context"

// finishRemoval ends the removal of an image that was cut short.
func (s *Files) finishRemoval(ctx context.Context, name string) error {
	return nil
}
