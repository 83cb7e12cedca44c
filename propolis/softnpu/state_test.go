package softnpu

import (
	"fmt"
	"strings"
	"testing"
)

// Default actions, priorities, registers, counters and meters over the management channel, byte for byte.
func TestStateOverTheChannel(t *testing.T) {
	a := newASIC(t, 2, nil)
	c := a.manage(t)
	p, err := Compile(Source{Main: "s.p4", Files: map[string]string{"s.p4": `#include <core.p4>
#include <softnpu.p4>
SoftNPU(parse(), ingress(), egress()) main;
header h_t { bit<8> a; }
struct headers_t { h_t h; }
struct pair_t { bit<16> x; bool y; }
parser parse(packet_in pkt, out headers_t hdr, inout ingress_metadata_t im) { state start { pkt.extract(hdr.h); transition accept; } }
control ingress(inout headers_t hdr, inout ingress_metadata_t im, inout egress_metadata_t em) {
    register<pair_t>(4) r;
    counter(2, CounterType.packets) n;
    meter(2, MeterType.bytes) m;
    action to(bit<16> p) { em.port = p; }
    table t { key = { hdr.h.a: ternary; } actions = { to; } default_action = to(1); }
    apply { t.apply(); n.count(1); }
}
control egress(inout headers_t hdr, inout ingress_metadata_t im, inout egress_metadata_t em) { apply { } }
`}}, 2)
	if err != nil {
		t.Fatal(err)
	}
	a.Load(p)
	for _, tt := range []struct{ request, err, result string }{
		{`"ArraysRequest"`, "", `[{"name":"ingress.r","kind":"register","size":4,"fields":[{"name":"x","bits":16},{"name":"y","bits":1}]},{"name":"ingress.n","kind":"counter","size":2},{"name":"ingress.m","kind":"meter","size":2}]`},
		{`{"CellSet":{"array":"ingress.r","index":3,"value_data":[2,1,1]}}`, "", ""},
		{`{"CellsGet":{"array":"ingress.r","first":2,"count":2}}`, "", `[{"value_data":[0,0,0]},{"value_data":[2,1,1]}]`},
		{`{"CellSet":{"array":"ingress.n","index":1,"count":{"packets":5,"bytes":6}}}`, "", ""},
		{`{"CellsGet":{"array":"ingress.n","first":1,"count":1}}`, "", `[{"count":{"packets":5,"bytes":6}}]`},
		{`{"CellSet":{"array":"ingress.m","index":0,"meter":{"committed_rate":1,"committed_burst":2,"peak_rate":3,"peak_burst":4}}}`, "", ""},
		{`{"CellsGet":{"array":"ingress.m","first":0,"count":1}}`, "", `[{"meter":{"committed_rate":1,"committed_burst":2,"peak_rate":3,"peak_burst":4}}]`},
		{`{"CellsGet":{"array":"ingress.m","first":0,"count":3}}`, "meter ingress.m has 2 cells, and no cell 2", ""},
		{`{"CellsGet":{"array":"ingress.m","first":0,"count":100000}}`, "1 to 4096 can be read at once", ""},
		{`{"CellsGet":{"array":"ingress.m","first":-1,"count":1}}`, "no cell -1", ""},
		{`{"CellsGet":{"array":"nothing","first":0,"count":1}}`, "there is no such register, counter or meter", ""},
		{`{"CellsGet":{"array":"nothing"}}`, "CellsGet has no first", ""},
		{`{"CellSet":{"array":"ingress.r","index":0,"count":{"packets":5,"bytes":6}}}`, "a cell is set with what it holds", ""},
		{`{"CellSet":{"array":"ingress.r","index":0,"value_data":[1]}}`, "the bytes end early", ""},
		{`{"CellSet":{"array":"ingress.r","index":9,"value_data":[1,1,1]}}`, "register ingress.r has 4 cells, and no cell 9", ""},
		{`"DefaultsRequest"`, "", `{"ingress.t":{"action_id":"to","parameter_data":[1,0]}}`},
		{`{"DefaultSet":{"table":"ingress.t","action":"to","parameter_data":[2,0]}}`, "", ""},
		{`{"DefaultSet":{"table":"ingress.t","action":"nothing","parameter_data":[2,0]}}`, `table ingress.t has no action "nothing"`, ""},
		{`{"DefaultSet":{"table":"ingress.t","action":"to","parameter_data":[]}}`, "the bytes end early", ""},
		{`"DefaultsRequest"`, "", `{"ingress.t":{"action_id":"to","parameter_data":[2,0]}}`},
		{`{"TableAdd":{"table":"ingress.t","action":"to","keyset_data":[1,7],"parameter_data":[1,0]}}`, "", ""},
		{`{"TableAdd":{"table":"ingress.t","action":"to","keyset_data":[1,7],"parameter_data":[2,0],"priority":9}}`, "", ""},
		{`{"TraceRequest":{"port":1,"frame":"Bw=="}}`, "", `{"ingress":1,"steps":[{"kind":"state","name":"start"},`},
		{`{"EntriesRequest":{"table":"ingress.t"}}`, "", `[{"action_id":"to","keyset_data":[1,7],"parameter_data":[1,0],"packets":0,"bytes":0,"direct":{"packets":0,"bytes":0}},{"action_id":"to","keyset_data":[1,7],"parameter_data":[2,0],"priority":9,"packets":1,"bytes":1,`},
		{`{"TableGet":{"table":"ingress.t","keyset_data":[1,7],"priority":9}}`, "", `{"action_id":"to","keyset_data":[1,7],"parameter_data":[2,0],"priority":9}`},
		{`{"TableRemove":{"table":"ingress.t","keyset_data":[1,7],"priority":8}}`, "there is no such entry", ""},
		{`{"TableRemove":{"table":"ingress.t","keyset_data":[1,7],"priority":9}}`, "", ""},
		{`"DumpRequest"`, "", `{"ingress.t":[{"action_id":"to","keyset_data":[1,7],"parameter_data":[1,0]}]}`},
	} {
		c.request(fmt.Sprintf(`{"Ask":{"id":77,"request":%s}}`, tt.request))
		got, ok := UnmarshalAnswer([]byte(c.line()))
		if !ok || !strings.Contains(got.Error, tt.err) || (got.Error == "") != (tt.err == "") || !strings.HasPrefix(string(got.Result), tt.result) {
			t.Errorf("%s: answered %q, %s", tt.request, got.Error, got.Result)
		}
	}
	// Without an Ask, as a client of SoftNPU would.
	c.request(`"DefaultsRequest"`)
	if got := c.line(); got != `{"ingress.t":{"action_id":"to","parameter_data":[2,0]}}` {
		t.Errorf("answered %q", got)
	}
}
