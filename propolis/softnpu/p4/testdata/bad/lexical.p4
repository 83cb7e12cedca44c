const bit<8> A = 0z12;
const bit<8> B = 0b012;
const bit<8> C = 4w16;
const bit<8> D = 9999w1;
const bit<8> E = 8w;
const bit<8> F = 3 § 4;
const bit<8> G = 300;
/* this comment
