package falcon

import (
	"testing"
	"time"
)

func TestPressureIsReadFromItsTotal(t *testing.T) {
	const text = "some avg10=36.98 avg60=57.81 avg300=67.27 total=9496242480\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"
	if got, err := someTotal([]byte(text)); got != 9496242480*time.Microsecond || err != nil {
		t.Errorf("got %v (%v)", got, err)
	}
	for _, bad := range []string{"", "full avg10=0.00 total=5\n", "some avg10=0.00\n", "some total=x\n"} {
		if got, err := someTotal([]byte(bad)); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

func TestLoadOfThisHostGrows(t *testing.T) {
	h := &linuxHost{}
	first, err := h.load()
	if err != nil || first.free == 0 || first.at.IsZero() {
		t.Fatalf("%+v (%v)", first, err)
	}
	second, err := h.load()
	if err != nil || second.cpu < first.cpu || second.memory < first.memory || second.measured != first.measured {
		t.Errorf("%+v after %+v (%v)", second, first, err)
	}
}
