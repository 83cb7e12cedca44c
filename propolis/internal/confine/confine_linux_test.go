package confine

import (
	"testing"
	"time"
)

func TestProbe(t *testing.T) {
	start := time.Now()
	level, why := Probe()
	t.Log(level, why, time.Since(start))
	for i := 0; i < 5; i++ {
		start = time.Now()
		err := try(Full)
		t.Log(err, time.Since(start))
	}
}
