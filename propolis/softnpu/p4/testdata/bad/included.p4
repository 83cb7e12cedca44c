// This file is included by preprocessor.p4, and is wrong by itself as well.

const bit<8> I = J;
