// Operand lists of wgmma by N: names of the accumulator registers, their constraints, and the names
// of the six operands behind them. An asm statement can count them in no shorter way.
#pragma once

// clang-format off
#define LOWBIT_WGMMA_D_8 \
  "{%0, %1, %2, %3}"
#define LOWBIT_WGMMA_REGISTERS_8(c) \
  c(d[0]), c(d[1]), c(d[2]), c(d[3])
#define LOWBIT_WGMMA_IN0_8 "%4"
#define LOWBIT_WGMMA_IN1_8 "%5"
#define LOWBIT_WGMMA_IN2_8 "%6"
#define LOWBIT_WGMMA_IN3_8 "%7"
#define LOWBIT_WGMMA_IN4_8 "%8"
#define LOWBIT_WGMMA_IN5_8 "%9"
#define LOWBIT_WGMMA_IN6_8 "%10"
#define LOWBIT_WGMMA_D_16 \
  "{%0, %1, %2, %3, %4, %5, %6, %7}"
#define LOWBIT_WGMMA_REGISTERS_16(c) \
  c(d[0]), c(d[1]), c(d[2]), c(d[3]), c(d[4]), c(d[5]), c(d[6]), c(d[7])
#define LOWBIT_WGMMA_IN0_16 "%8"
#define LOWBIT_WGMMA_IN1_16 "%9"
#define LOWBIT_WGMMA_IN2_16 "%10"
#define LOWBIT_WGMMA_IN3_16 "%11"
#define LOWBIT_WGMMA_IN4_16 "%12"
#define LOWBIT_WGMMA_IN5_16 "%13"
#define LOWBIT_WGMMA_IN6_16 "%14"
#define LOWBIT_WGMMA_D_32 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}"
#define LOWBIT_WGMMA_REGISTERS_32(c) \
  c(d[0]), c(d[1]), c(d[2]), c(d[3]), c(d[4]), c(d[5]), c(d[6]), c(d[7]), \
  c(d[8]), c(d[9]), c(d[10]), c(d[11]), c(d[12]), c(d[13]), c(d[14]), c(d[15])
#define LOWBIT_WGMMA_IN0_32 "%16"
#define LOWBIT_WGMMA_IN1_32 "%17"
#define LOWBIT_WGMMA_IN2_32 "%18"
#define LOWBIT_WGMMA_IN3_32 "%19"
#define LOWBIT_WGMMA_IN4_32 "%20"
#define LOWBIT_WGMMA_IN5_32 "%21"
#define LOWBIT_WGMMA_IN6_32 "%22"
#define LOWBIT_WGMMA_D_64 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define LOWBIT_WGMMA_REGISTERS_64(c) \
  c(d[0]), c(d[1]), c(d[2]), c(d[3]), c(d[4]), c(d[5]), c(d[6]), c(d[7]), \
  c(d[8]), c(d[9]), c(d[10]), c(d[11]), c(d[12]), c(d[13]), c(d[14]), c(d[15]), \
  c(d[16]), c(d[17]), c(d[18]), c(d[19]), c(d[20]), c(d[21]), c(d[22]), c(d[23]), \
  c(d[24]), c(d[25]), c(d[26]), c(d[27]), c(d[28]), c(d[29]), c(d[30]), c(d[31])
#define LOWBIT_WGMMA_IN0_64 "%32"
#define LOWBIT_WGMMA_IN1_64 "%33"
#define LOWBIT_WGMMA_IN2_64 "%34"
#define LOWBIT_WGMMA_IN3_64 "%35"
#define LOWBIT_WGMMA_IN4_64 "%36"
#define LOWBIT_WGMMA_IN5_64 "%37"
#define LOWBIT_WGMMA_IN6_64 "%38"
#define LOWBIT_WGMMA_D_128 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define LOWBIT_WGMMA_REGISTERS_128(c) \
  c(d[0]), c(d[1]), c(d[2]), c(d[3]), c(d[4]), c(d[5]), c(d[6]), c(d[7]), \
  c(d[8]), c(d[9]), c(d[10]), c(d[11]), c(d[12]), c(d[13]), c(d[14]), c(d[15]), \
  c(d[16]), c(d[17]), c(d[18]), c(d[19]), c(d[20]), c(d[21]), c(d[22]), c(d[23]), \
  c(d[24]), c(d[25]), c(d[26]), c(d[27]), c(d[28]), c(d[29]), c(d[30]), c(d[31]), \
  c(d[32]), c(d[33]), c(d[34]), c(d[35]), c(d[36]), c(d[37]), c(d[38]), c(d[39]), \
  c(d[40]), c(d[41]), c(d[42]), c(d[43]), c(d[44]), c(d[45]), c(d[46]), c(d[47]), \
  c(d[48]), c(d[49]), c(d[50]), c(d[51]), c(d[52]), c(d[53]), c(d[54]), c(d[55]), \
  c(d[56]), c(d[57]), c(d[58]), c(d[59]), c(d[60]), c(d[61]), c(d[62]), c(d[63])
#define LOWBIT_WGMMA_IN0_128 "%64"
#define LOWBIT_WGMMA_IN1_128 "%65"
#define LOWBIT_WGMMA_IN2_128 "%66"
#define LOWBIT_WGMMA_IN3_128 "%67"
#define LOWBIT_WGMMA_IN4_128 "%68"
#define LOWBIT_WGMMA_IN5_128 "%69"
#define LOWBIT_WGMMA_IN6_128 "%70"
#define LOWBIT_WGMMA_D_256 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}"
#define LOWBIT_WGMMA_REGISTERS_256(c) \
  c(d[0]), c(d[1]), c(d[2]), c(d[3]), c(d[4]), c(d[5]), c(d[6]), c(d[7]), \
  c(d[8]), c(d[9]), c(d[10]), c(d[11]), c(d[12]), c(d[13]), c(d[14]), c(d[15]), \
  c(d[16]), c(d[17]), c(d[18]), c(d[19]), c(d[20]), c(d[21]), c(d[22]), c(d[23]), \
  c(d[24]), c(d[25]), c(d[26]), c(d[27]), c(d[28]), c(d[29]), c(d[30]), c(d[31]), \
  c(d[32]), c(d[33]), c(d[34]), c(d[35]), c(d[36]), c(d[37]), c(d[38]), c(d[39]), \
  c(d[40]), c(d[41]), c(d[42]), c(d[43]), c(d[44]), c(d[45]), c(d[46]), c(d[47]), \
  c(d[48]), c(d[49]), c(d[50]), c(d[51]), c(d[52]), c(d[53]), c(d[54]), c(d[55]), \
  c(d[56]), c(d[57]), c(d[58]), c(d[59]), c(d[60]), c(d[61]), c(d[62]), c(d[63]), \
  c(d[64]), c(d[65]), c(d[66]), c(d[67]), c(d[68]), c(d[69]), c(d[70]), c(d[71]), \
  c(d[72]), c(d[73]), c(d[74]), c(d[75]), c(d[76]), c(d[77]), c(d[78]), c(d[79]), \
  c(d[80]), c(d[81]), c(d[82]), c(d[83]), c(d[84]), c(d[85]), c(d[86]), c(d[87]), \
  c(d[88]), c(d[89]), c(d[90]), c(d[91]), c(d[92]), c(d[93]), c(d[94]), c(d[95]), \
  c(d[96]), c(d[97]), c(d[98]), c(d[99]), c(d[100]), c(d[101]), c(d[102]), c(d[103]), \
  c(d[104]), c(d[105]), c(d[106]), c(d[107]), c(d[108]), c(d[109]), c(d[110]), c(d[111]), \
  c(d[112]), c(d[113]), c(d[114]), c(d[115]), c(d[116]), c(d[117]), c(d[118]), c(d[119]), \
  c(d[120]), c(d[121]), c(d[122]), c(d[123]), c(d[124]), c(d[125]), c(d[126]), c(d[127])
#define LOWBIT_WGMMA_IN0_256 "%128"
#define LOWBIT_WGMMA_IN1_256 "%129"
#define LOWBIT_WGMMA_IN2_256 "%130"
#define LOWBIT_WGMMA_IN3_256 "%131"
#define LOWBIT_WGMMA_IN4_256 "%132"
#define LOWBIT_WGMMA_IN5_256 "%133"
#define LOWBIT_WGMMA_IN6_256 "%134"
// clang-format on
