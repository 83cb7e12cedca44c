header h_t { bit<8> a; }
struct headers_t { h_t h; }
struct im_t { bit<16> port; }
struct em_t { bit<300> port; bit<8> drop; }
struct other_t { bit<16> port; }
parser parse(packet_in pkt, out headers_t hdr, inout other_t im) { state start { transition accept; } }
control ingress(inout headers_t hdr, inout im_t im, inout em_t em) { apply { } }
control egress(inout headers_t hdr, inout im_t im) { apply { } }
SoftNPU(parse(), ingress(), egress()) main;
