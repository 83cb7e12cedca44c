struct ingress_metadata_t { bit<16> port; }
struct egress_metadata_t { bit<16> port; bool drop; }
header v4_t { bit<32> dst; bit<16> id; bit<48> mac; }
header v6_t { bit<128> dst; }
struct headers_t { v4_t v4; v6_t v6; }
