// Headers that more than one program has, in a file without guards, as programs for x4c have them.
header ethernet_h {
    bit<48> dst;
    bit<48> src;
    bit<16> type;
}

header vlan_h {
    bit<3>  pcp;
    bit<1>  dei;
    bit<12> vid;
    bit<16> type;
}

header cpu_h {
    bit<8>   code;
    bit<16>  port;
    bit<16>  type;
    bit<128> data;
}
