package p4_test

import (
	"fmt"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

const example = `
header ethernet_t { bit<48> dst; bit<48> src; bit<16> type; }
struct headers_t { ethernet_t ethernet; }
struct ingress_t { bit<16> port; }
struct egress_t { bit<16> port; bool drop; bool broadcast; }

parser parse(packet_in packet, out headers_t hdr, inout ingress_t from) {
    state start { packet.extract(hdr.ethernet); transition accept; }
}
control ingress(inout headers_t hdr, inout ingress_t from, inout egress_t to) {
    action forward(bit<16> port) { to.port = port; }
    table fib {
        key = { hdr.ethernet.dst: exact; }
        actions = { forward; }
    }
    apply { fib.apply(); }
}
control egress(inout headers_t hdr, inout ingress_t from, inout egress_t to) { apply { } }
SoftNPU(parse(), ingress(), egress()) main;
`

func Example() {
	program, err := p4.Compile(p4.Files("switch.p4", map[string]string{"switch.p4": example}))
	if err != nil {
		fmt.Println(err)
		return
	}
	pipeline, err := program.New(4)
	if err != nil {
		fmt.Println(err)
		return
	}
	dst := []byte{0xa8, 0x40, 0x25, 0, 0, 1}
	err = pipeline.Add("ingress.fib", p4.Entry{
		Match:  []match.Match{{Value: dst}},
		Action: "forward",
		Args:   [][]byte{{0, 2}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	frame := append(dst, make([]byte, 54)...)
	reason := pipeline.Process(1, frame, func(port uint16, out []byte) {
		fmt.Printf("%d bytes leave by port %d\n", len(out), port)
	})
	fmt.Println(reason)
	fmt.Print(pipeline.Trace(1, make([]byte, 60)))
	// Output:
	// 60 bytes leave by port 2
	// not dropped
	// in by port 1
	// state start
	// extract hdr.ethernet [dst 0x000000000000, src 0x000000000000, type 0x0000]
	// table ingress.fib [hdr.ethernet.dst 0x000000000000] miss → NoAction()
	// dropped: no egress port set
}
