package softnpu

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4"
)

// A switch that forwards by destination address, and broadcasts what it does
// not know.
const switchP4 = `
#include "headers.p4"
parser parse(packet_in pkt, out headers_t hdr, inout ingress_metadata_t ingress) {
    state start { pkt.extract(hdr.ethernet); transition accept; }
}
control forwarding(inout headers_t hdr, inout egress_metadata_t egress) {
    action forward(bit<16> port) { egress.port = port; }
    action flood() { egress.broadcast = true; }
    table fib {
        key = { hdr.ethernet.dst: exact; }
        actions = { forward; flood; }
        default_action = flood;
    }
    apply { fib.apply(); }
}
control ingress(inout headers_t hdr, inout ingress_metadata_t ingress, inout egress_metadata_t egress) {
    forwarding() fwd;
    apply { fwd.apply(hdr, egress); }
}
control egress(inout headers_t hdr, inout ingress_metadata_t ingress, inout egress_metadata_t egress) {
    apply { }
}
SoftNPU(parse(), ingress(), egress()) main;
`

const switchHeadersP4 = `
struct ingress_metadata_t { bit<16> port; }
struct egress_metadata_t { bit<16> port; bool drop; bool broadcast; }
header ethernet_t { bit<48> dst; bit<48> src; bit<16> ethertype; }
struct headers_t { ethernet_t ethernet; }
`

func switchSource() Source {
	return Source{Main: "switch.p4", Files: map[string]string{"switch.p4": switchP4, "headers.p4": switchHeadersP4}}
}

func TestAProgramInP4IsLoadedByAGuest(t *testing.T) {
	a := newASIC(t, 3, nil)
	a.serve(t)
	c := a.manage(t)
	load := func(s Source) Answer {
		t.Helper()
		line, err := FrameRequest(Ask{ID: 1, Request: ProgramLoad(s)})
		if err != nil {
			t.Fatal(err)
		}
		c.write(line)
		answer, ok := UnmarshalAnswer([]byte(c.line()))
		if !ok {
			t.Fatal("no answer")
		}
		return answer
	}
	if answer := load(switchSource()); answer.Error != "" {
		t.Fatal(answer.Error)
	}
	// An unknown address goes to all ports but its own, and to the CPU.
	a.ports[0].in <- Frame{Data: ethernet(1)}
	for _, w := range []*memoryWire{a.cpu, a.ports[1], a.ports[2]} {
		if f := w.next(t); !bytes.Equal(f.Data, ethernet(1)) {
			t.Errorf("got %q", f.Data)
		}
	}
	// "dstdst", little-endian.
	c.request(`{"TableAdd":{"table":"ingress.fwd.fib","action":"forward","keyset_data":[116,115,100,116,115,100],"parameter_data":[3,0]}}`)
	c.request(`"DumpRequest"`)
	const dump = `{"ingress.fwd.fib":[{"action_id":"forward","keyset_data":[116,115,100,116,115,100],"parameter_data":[3,0]}]}`
	if got := c.line(); got != dump {
		t.Errorf("the dump is %s", got)
	}
	a.ports[0].in <- Frame{Data: ethernet(2)}
	if f := a.ports[2].next(t); !bytes.Equal(f.Data, ethernet(2)) {
		t.Errorf("got %q", f.Data)
	}
	// A program that is none leaves all as it was, and says why.
	bad := switchSource()
	bad.Files["switch.p4"] = strings.Replace(switchP4, "egress.broadcast = true", "egress.boradcast = true", 1)
	if answer := load(bad); !strings.Contains(answer.Error, "switch.p4:8:") || !strings.Contains(answer.Error, "boradcast") {
		t.Errorf("a program with a fault: %q", answer.Error)
	}
	a.ports[0].in <- Frame{Data: ethernet(3)}
	if f := a.ports[2].next(t); !bytes.Equal(f.Data, ethernet(3)) || len(a.ports[1].out)+len(a.cpu.out) != 0 {
		t.Errorf("got %q, and others got %d frames", f.Data, len(a.ports[1].out)+len(a.cpu.out))
	}
	// Too short for the parser.
	a.ports[0].in <- Frame{Data: []byte("short")}
	eventually(t, "the short frame was not counted", func() bool { return a.Counters()[1].Dropped == 1 })
}

func TestFaultsOfAProgramAreDiagnostics(t *testing.T) {
	_, err := Compile(Source{Main: "x.p4", Files: map[string]string{"x.p4": "control {"}}, 2)
	if d, ok := errors.AsType[p4.Diagnostics](err); !ok || len(d) == 0 {
		t.Errorf("Compile: %v", err)
	}
	_, err = Compile(Source{Main: "y.p4", Files: map[string]string{"x.p4": ""}}, 2)
	if err == nil || !strings.Contains(err.Error(), "y.p4") {
		t.Errorf("a program that is not there: %v", err)
	}
	_, err = Compile(Source{Main: "x.p4", Files: map[string]string{"x.p4": "const bit<8> a = 1;"}}, 2)
	if !errors.Is(err, p4.ErrNoPipeline) {
		t.Errorf("a program without a pipeline: %v", err)
	}
}

// A program's way through the ASIC, without what the kernel takes.
func BenchmarkForwardP4(b *testing.B) {
	a := newASIC(b, 2, nil)
	if err := a.LoadSource(switchSource()); err != nil {
		b.Fatal(err)
	}
	if _, err := a.Do(TableAdd{Table: "ingress.fwd.fib", Action: "forward", Keys: Octets("tsdtsd"), Arguments: Octets{2, 0}}); err != nil {
		b.Fatal(err)
	}
	benchmarkForward(b, a, append(ethernet(1), make([]byte, 42)...))
}
