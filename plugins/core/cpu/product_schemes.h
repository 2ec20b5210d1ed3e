// Schemes that multiply matrices with fewer products than usual: linear combinations of samples times linear
// combinations of weights, added up. With samples X (pixels by channels) and weights W (channels by outputs) cut into
// parts,
//   product[i] = (kSamples, row i, of the parts of X) * (kWeights, row i, of the parts of W)
//   part j of Y = X * W is kSums, row j, of the products.
// Parts are counted row by row; a space separates rows of parts, for the eye.
#pragma once

namespace deploydcn::cpu {
namespace {

// Of every row: which terms are added (+), subtracted (-), left out (.).
template <int kRows, int kTerms, int kSpace>
struct Signs {
  char rows[kRows][kTerms + kTerms / kSpace];
  constexpr int operator()(int row, int term) const {
    const char sign = rows[row][term + term / kSpace];
    return sign == '+' ? 1 : sign == '-' ? -1 : 0;
  }
};

// Whether a scheme multiplies what it should: the coefficient of every product of a part of X and a part of W, in every
// part of Y (R. P. Brent, Algorithms for matrix multiplication, 1970).
template <class Scheme>
constexpr bool multiplies() {
  constexpr int channels = Scheme::kChannels, outputs = Scheme::kOutputs;
  for (int x = 0; x < Scheme::kPixels * channels; ++x) {
    for (int w = 0; w < channels * outputs; ++w) {
      for (int y = 0; y < Scheme::kPixels * outputs; ++y) {
        const bool wanted = x / channels == y / outputs && x % channels == w / outputs && w % outputs == y % outputs;
        int got = 0;
        for (int i = 0; i < Scheme::kProducts; ++i) {
          got += Scheme::kSamples(i, x) * Scheme::kWeights(i, w) * Scheme::kSums(y, i);
        }
        if (got != (wanted ? 1 : 0)) return false;
      }
    }
  }
  return true;
}

// Seven products for eight (V. Strassen, Gaussian elimination is not optimal, 1969).
struct Strassen {
  static constexpr int kPixels = 2, kChannels = 2, kOutputs = 2, kProducts = 7;
  static constexpr Signs<7, 4, 2> kSamples = {{
      "+. .+",
      ".. ++",
      "+. ..",
      ".. .+",
      "++ ..",
      "-. +.",
      ".+ .-",
  }};
  static constexpr Signs<7, 4, 2> kWeights = {{
      "+. .+",
      "+. ..",
      ".+ .-",
      "-. +.",
      ".. .+",
      "++ ..",
      ".. ++",
  }};
  static constexpr Signs<4, 7, 7> kSums = {{
      "+..+-.+",
      "..+.+..",
      ".+.+...",
      "+-+..+.",
  }};
};
static_assert(multiplies<Strassen>());

// 26 products for 32, as many as J. E. Hopcroft and L. R. Kerr need (On minimizing the number of multiplications
// necessary for matrix multiplication, 1971). Found by a random walk from the 32, as M. Kauers and J. Moosbauer
// describe (Flip graphs for matrix multiplication, 2023), that prefers few samples per product.
struct HopcroftKerr {
  static constexpr int kPixels = 4, kChannels = 4, kOutputs = 2, kProducts = 26;
  static constexpr Signs<26, 16, 4> kSamples = {{
      ".... .... .+.. ....", "..+. .... ..-. ....", "..+. ..-. ..-. ..-.", "...+ .... ...- ...-", "...+ .... .... ....",
      ".... .... .... +...", "..+. ..-- ..-. ..-.", ".+-. .... .-+. .-+.", ".... .... .... .+..", "+..+ +... ..+. ....",
      ".... +-.. .... .-..", ".... .... ..++ ....", "..-. .... ..+. .-+.", "-..- .... +..+ ....", "..+. ..-- ..-. -.--",
      "...+ .... ..+. ....", "...- .... ..-. .+-.", ".... ..++ .... ....", "...- .... ...+ -...", "+..+ +... .... ....",
      "-+.- .... .... ....", ".... +... .... ....", "-..- .... .+.. ....", "...+ .... +-.. +...", ".... .-++ .-.. ....",
      "+..+ +..+ .... ....",
  }};
  static constexpr Signs<26, 8, 2> kWeights = {{
      "-+ -+ .. ..", ".. .. .+ ..", ".. .. .+ .-", ".. .. .. +-", "+- .. +- -+", ".+ .. .. .-", ".. +. +. .-",
      ".. +. .. ..", ".. -+ -+ ..", "+. .. +. -.", ".. .+ .. ..", "+. .. .. -.", ".. +. +- ..", "+. .. .. ..",
      ".. .. .. .+", "+. .. +- -.", ".. .. -+ ..", ".. +. +. ..", "+. .. .. .-", "-+ .+ -. +.", ".. .+ .. ..",
      ".+ .+ .. ..", "-+ .+ .. ..", "+- .. .. ..", ".. +. .. ..", ".. .. +. -.",
  }};
  static constexpr Signs<8, 26, 26> kSums = {{
      "-+.....+.+..-..-+..+.-+...",
      ".+..+....+.....-...++-....",
      "+................+.-.+-.--",
      "..-...+.-.-.+....+...+....",
      "-........+.-.+.....+.-+...",
      "....+-...+...+.-..-+.-+-..",
      ".+.-..-....+-.--+--.......",
      ".+...+-.+...-.-..-........",
  }};
};
static_assert(multiplies<HopcroftKerr>());

}  // namespace
}  // namespace deploydcn::cpu
