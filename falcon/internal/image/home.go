package image

import (
	"errors"
	"fmt"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// HomeError says that a home cannot be trusted: somebody else can put into it
// what he wants.
type HomeError struct {
	// Home is the home, Path the folder that is to blame, Reason why.
	Home, Path, Reason string
}

func (e *HomeError) Error() string {
	which := "it"
	if e.Path != e.Home {
		which = e.Path
	}
	return fmt.Sprintf("the home %s cannot be trusted: %s %s; choose a folder of your own (FALCON_HOME)", e.Home, which, e.Reason)
}

// checkHome refuses a home that somebody else can change: it and all that it is
// in must belong to the caller or to the system, and be writable for nobody
// else. A folder such as /tmp, where nobody can move what is another's, will do.
// A home that is not there yet is judged by what it will be in.
func checkHome(home string) error {
	err := state.JudgeHome(home)
	var distrust *state.TrustError
	if errors.As(err, &distrust) {
		return &HomeError{Home: home, Path: distrust.Path, Reason: distrust.Why}
	}
	if err != nil {
		return fmt.Errorf("the home %s: %w", home, err)
	}
	return nil
}
