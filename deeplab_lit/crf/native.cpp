// The `native` backend: mean-field inference of the dense CRF on permutohedral lattices.
//
// Same mathematics as mean_field.py and permutohedral.py (read those first); this file is about
// memory. Label scores live in rows of V vectors of 8 floats, padded with labels of probability 0.
// One pass over the pixels slices the messages, takes the softmax and splats into the next
// iteration's tables, all in registers. Pixels are divided into one strip a thread; a vertex that
// two strips touch has a copy for the later one, added up before the blur. Hence no atomics, and
// the same result on every run with as many threads.
//
// C interface for ctypes at the end. Letters: C labels, N pixels, D = d + 1, M vertices.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>
#ifdef __linux__
#include <sys/mman.h>
#endif

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));

constexpr int BLOCK = 16;       // pixels whose hash slots are fetched together
constexpr int MAX_CORNERS = 6;  // 5 features
constexpr float ALMOST_ZERO = 1e-20f;

// Memory for tables: uninitialized, in huge pages where the system has them.
template <class T>
class Buffer {
  public:
    explicit Buffer(int64_t size = 0) {
        size_t page = 1 << 21, bytes = (size * sizeof(T) + page) / page * page;
        void *memory = std::aligned_alloc(page, bytes);
        if (!memory) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        madvise(memory, bytes, MADV_HUGEPAGE);
#endif
        data_.reset(static_cast<T *>(memory));
    }
    operator T *() const { return data_.get(); }

  private:
    struct Free {
        void operator()(void *memory) const { std::free(memory); }
    };
    std::unique_ptr<T, Free> data_;
};

// ------------------------------------------------------------------------------ the lattice

// Numbers vertices in the order of their first insertion, from 1; 0 is "no such vertex".
class VertexTable {
  public:
    std::vector<uint64_t> keys{0};

    explicit VertexTable(int log_size = 14) : shift_(64 - log_size), slots_(1 << log_size) {}

    uint32_t find(uint64_t key) const { return slots_[probe(key)].id; }

    uint32_t insert(uint64_t key) {
        Slot *slot = &slots_[probe(key)];
        if (slot->id) return slot->id;
        *slot = {key, static_cast<uint32_t>(keys.size())};
        keys.push_back(key);
        if (keys.size() * 2 > slots_.size()) grow();
        return static_cast<uint32_t>(keys.size() - 1);
    }

    void prefetch(uint64_t key) const { __builtin_prefetch(&slots_[hash(key)]); }

  private:
    struct Slot {
        uint64_t key;
        uint32_t id;
    };
    int shift_;
    std::vector<Slot> slots_;

    size_t hash(uint64_t key) const { return key * 0x9E3779B97F4A7C15ull >> shift_; }

    size_t probe(uint64_t key) const {
        size_t at = hash(key);
        while (slots_[at].id && slots_[at].key != key) at = (at + 1) & (slots_.size() - 1);
        return at;
    }

    void grow() {
        slots_.assign(slots_.size() * 4, Slot{});
        shift_ -= 2;
        for (uint32_t id = 1; id < keys.size(); id++) slots_[probe(keys[id])] = {keys[id], id};
    }
};

struct Lattice {
    int64_t pixels;
    int corners;  // D
    int strips;
    int64_t vertices = 0;             // M; row 0 of every table stays 0
    std::vector<int64_t> strip;       // strip s has the pixels strip[s]…strip[s+1]−1
    std::vector<uint32_t> copied;     // row M+1+i holds a copy of vertex copied[i]
    std::vector<int64_t> first_copy;  // strip s has the copies first_copy[s]…first_copy[s+1]−1
    Buffer<uint32_t> slice_row;       // N×D
    Buffer<uint32_t> splat_row;       // N×D, a copy's row where the strip has one
    Buffer<float> weight;             // N×D, barycentric
    Buffer<uint32_t> neighbor;       // D×(M+1)×2, one step forth and one step back
    Buffer<float> norm;               // N, 1/√(the kernel's sum)

    Lattice(int64_t n, int corners, int strips)
        : pixels(n), corners(corners), strips(strips), slice_row(n * corners),
          splat_row(strips > 1 ? n * corners : 0), weight(n * corners), norm(n) {
        for (int s = 0; s <= strips; s++) strip.push_back(n * s / strips);
    }
    int64_t rows() const { return vertices + 1 + static_cast<int64_t>(copied.size()); }
    const uint32_t *splat_rows() const { return strips > 1 ? splat_row : slice_row; }
    float alpha() const { return 1 / (1 + std::ldexp(1.f, 1 - corners)); }
};

// The simplex around each of a strip's pixels; `slice_row` gets the strip's own numbers.
template <int D>
void embed(Lattice &lattice, int s, const float *elevated, const int64_t *low,
           const int64_t *stride, int64_t phase, VertexTable &table) {
    const float down = 1.f / D;
    uint64_t last_key[D];
    uint32_t last_id[D];
    std::fill(last_key, last_key + D, ~0ull);
    for (int64_t begin = lattice.strip[s]; begin < lattice.strip[s + 1]; begin += BLOCK) {
        const int count = static_cast<int>(std::min<int64_t>(BLOCK, lattice.strip[s + 1] - begin));
        float e[D][BLOCK] = {}, rest[D][BLOCK];
        int cell[D][BLOCK], rank[D][BLOCK], sum[BLOCK] = {};
        int64_t first[BLOCK] = {};
        for (int i = 0; i < D; i++) {
            std::memcpy(e[i], elevated + i * lattice.pixels + begin, count * sizeof(float));
            for (int p = 0; p < BLOCK; p++) {
                const float nearest = std::nearbyint(e[i][p] * down);
                rest[i][p] = e[i][p] - nearest * D;
                cell[i][p] = static_cast<int>(nearest);
                sum[p] += cell[i][p];
            }
        }
        for (int i = 0; i < D; i++) std::copy(sum, sum + BLOCK, rank[i]);
        for (int i = 0; i < D; i++)
            for (int j = i + 1; j < D; j++)
                for (int p = 0; p < BLOCK; p++) {
                    const int less = rest[i][p] < rest[j][p];
                    rank[i][p] += less;
                    rank[j][p] += 1 - less;
                }
        for (int i = 0; i < D; i++)
            for (int p = 0; p < BLOCK; p++) {
                const int shift = (rank[i][p] < 0) - (rank[i][p] >= D);
                rank[i][p] += shift * D;
                cell[i][p] += shift;
                rest[i][p] = (e[i][p] - static_cast<float>(cell[i][p] * D)) * down;
                first[p] += (cell[i][p] - low[i]) * stride[i];
            }
        uint64_t key[D][BLOCK];
        for (int p = 0; p < count; p++) {
            float falling[D];
            int64_t step[D];
            for (int i = 0; i < D; i++) {
                falling[D - 1 - rank[i][p]] = rest[i][p];
                step[D - 1 - rank[i][p]] = stride[i];
            }
            float *weight = lattice.weight + (begin + p) * D;
            weight[0] = falling[0] + (1 - falling[D - 1]);
            for (int k = 1; k < D; k++) weight[k] = falling[k] - falling[k - 1];
            key[0][p] = first[p];
            for (int k = 1; k < D; k++) key[k][p] = key[k - 1][p] + phase - step[k - 1];
            for (int k = 0; k < D; k++) table.prefetch(key[k][p]);
        }
        for (int p = 0; p < count; p++)
            for (int k = 0; k < D; k++) {
                if (key[k][p] != last_key[k]) {
                    last_key[k] = key[k][p];
                    last_id[k] = table.insert(key[k][p]);
                }
                lattice.slice_row[(begin + p) * D + k] = last_id[k];
            }
    }
}

// Joins the strips' tables into the first one and renumbers the pixels' rows.
void merge(Lattice &lattice, std::vector<VertexTable> &tables) {
    constexpr uint32_t COPY = 1u << 31;
    const int strips = lattice.strips;
    std::vector<std::vector<uint32_t>> slice(strips), splat(strips);
    lattice.first_copy.assign(2, 0);  // strip 0 has none
    for (int s = 1; s < strips; s++) {
        for (uint64_t key : tables[s].keys) {
            const size_t known = tables[0].keys.size();
            const uint32_t id = slice[s].empty() ? 0 : tables[0].insert(key);
            const bool copy = id && id < known;
            slice[s].push_back(id);
            splat[s].push_back(copy ? COPY | lattice.copied.size() : id);
            if (copy) lattice.copied.push_back(id);
        }
        lattice.first_copy.push_back(lattice.copied.size());
    }
    lattice.vertices = tables[0].keys.size() - 1;
    if (strips == 1) return;
    const uint32_t copies = lattice.vertices + 1;
#pragma omp parallel for num_threads(strips) schedule(static, 1)
    for (int s = 0; s < strips; s++)
        for (int64_t i = lattice.strip[s] * lattice.corners;
             i < lattice.strip[s + 1] * lattice.corners; i++) {
            const uint32_t own = lattice.slice_row[i];
            lattice.slice_row[i] = s ? slice[s][own] : own;
            const uint32_t row = s ? splat[s][own] : own;
            lattice.splat_row[i] = row & COPY ? copies + (row ^ COPY) : row;
        }
}

void find_neighbors(Lattice &lattice, const VertexTable &table, const int64_t *stride,
                     int64_t phase) {
    const int64_t rows = lattice.vertices + 1;
    const int corners = lattice.corners;
    int64_t all_strides = 0;
    for (int j = 0; j < corners; j++) all_strides += stride[j];
    lattice.neighbor = Buffer<uint32_t>(corners * rows * 2);
    uint32_t *neighbor = lattice.neighbor;
    auto forth = [&](int64_t v, int j) {  // key of the vertex one step along direction j
        const uint64_t key = table.keys[v];
        const uint64_t wrapped = key + (corners - 1) * phase - all_strides;
        return (key < static_cast<uint64_t>(phase) ? wrapped : key - phase) + stride[j];
    };
#pragma omp parallel num_threads(lattice.strips)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < corners * rows * 2; i++) neighbor[i] = 0;
#pragma omp for schedule(static)
        for (int64_t begin = 1; begin < rows; begin += BLOCK) {
            const int64_t end = std::min(begin + BLOCK, rows);
            for (int64_t v = begin; v < end; v++)
                for (int j = 0; j < corners; j++) table.prefetch(forth(v, j));
            for (int64_t v = begin; v < end; v++)
                for (int j = 0; j < corners; j++)
                    if (const uint32_t other = table.find(forth(v, j))) {
                        neighbor[(j * rows + v) * 2] = other;
                        neighbor[(j * rows + other) * 2 + 1] = static_cast<uint32_t>(v);
                    }
        }
    }
}

// ------------------------------------------------------------------------ splat, blur, slice

// A table's rows have V entries of type T: one float for the norm, v8 for label scores.
template <class T, int V, int D>
inline void gather(T *sum, const T *table, const uint32_t *rows, const float *weight) {
    for (int k = 0; k < D; k++)
        for (int v = 0; v < V; v++) sum[v] += table[int64_t{rows[k]} * V + v] * weight[k];
}

template <class T, int V, int D>
inline void scatter(const T *value, T *table, const uint32_t *rows, const float *weight) {
    for (int k = 0; k < D; k++)
        for (int v = 0; v < V; v++) table[int64_t{rows[k]} * V + v] += value[v] * weight[k];
}

// Adds up the strips' copies, then blurs along every direction, between `table` and `other`.
// Afterwards the result is in `table`, and `other` is zero.
template <class T, int V>
void blur(const Lattice &lattice, T *&table, T *&other) {
    const int64_t rows = lattice.vertices + 1;
#pragma omp parallel num_threads(lattice.strips)
    {
        for (int s = 1; s < lattice.strips; s++) {
#pragma omp for schedule(static)
            for (int64_t i = lattice.first_copy[s]; i < lattice.first_copy[s + 1]; i++)
                for (int v = 0; v < V; v++)
                    table[int64_t{lattice.copied[i]} * V + v] += table[(rows + i) * V + v];
        }
        T *from = table, *to = other;
        for (int j = 0; j < lattice.corners; j++) {
            const uint32_t *neighbor = lattice.neighbor + j * rows * 2;
#pragma omp for schedule(static)
            for (int64_t r = 0; r < rows; r++) {
                const int64_t ahead = std::min(r + BLOCK, rows - 1) * 2;
                for (int v = 0; v < V; v += 2) {  // a cache line holds two v8
                    __builtin_prefetch(from + int64_t{neighbor[ahead]} * V + v);
                    __builtin_prefetch(from + int64_t{neighbor[ahead + 1]} * V + v);
                }
                const T *forth = from + int64_t{neighbor[r * 2]} * V;
                const T *back = from + int64_t{neighbor[r * 2 + 1]} * V;
                for (int v = 0; v < V; v++)
                    to[r * V + v] = from[r * V + v] + 0.5f * (forth[v] + back[v]);
            }
            std::swap(from, to);
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < lattice.rows() * V; i++) to[i] = T{};
#pragma omp single
        {
            table = from;
            other = to;
        }
    }
}

template <int D>
void find_norm(Lattice &lattice) {
    Buffer<float> a(lattice.rows()), b(lattice.rows());
    float *table = a, *other = b;
    std::fill(table, table + lattice.rows(), 0.f);
    const uint32_t *rows = lattice.splat_rows();
    const float one = 1;
#pragma omp parallel for num_threads(lattice.strips) schedule(static, 1)
    for (int s = 0; s < lattice.strips; s++)
        for (int64_t i = lattice.strip[s]; i < lattice.strip[s + 1]; i++)
            scatter<float, 1, D>(&one, table, rows + i * D, lattice.weight + i * D);
    blur<float, 1>(lattice, table, other);
#pragma omp parallel for num_threads(lattice.strips) schedule(static)
    for (int64_t i = 0; i < lattice.pixels; i++) {
        float sum = 0;
        gather<float, 1, D>(&sum, table, lattice.slice_row + i * D, lattice.weight + i * D);
        lattice.norm[i] = 1 / std::sqrt(sum * lattice.alpha() + ALMOST_ZERO);
    }
}

// ---------------------------------------------------------------------------- the mean field

#ifdef __clang__
#define PERMUTE(x, ...) __builtin_shufflevector(x, x, __VA_ARGS__)
#else
#define PERMUTE(x, ...) __builtin_shuffle(x, (i8){__VA_ARGS__})
#endif

// One vector's maximum or sum, in all eight places.
template <class Combine>
inline v8 reduce(v8 x, Combine combine) {
    x = combine(x, PERMUTE(x, 4, 5, 6, 7, 0, 1, 2, 3));
    x = combine(x, PERMUTE(x, 2, 3, 0, 1, 6, 7, 4, 5));
    return combine(x, PERMUTE(x, 1, 0, 3, 2, 5, 4, 7, 6));
}

inline v8 larger(v8 a, v8 b) { return a > b ? a : b; }

inline v8 plus(v8 a, v8 b) { return a + b; }

// eˣ for x ≤ 0 within 2 units in the last place (Cephes expf); exactly 0 below −70.
inline v8 exp_v8(v8 x) {
    const float magic = 12582912.f;  // 1.5·2²³: adding it rounds to whole numbers
    const i8 keep = x > -70.f;
    const v8 shifted = x * 1.44269504088896341f + magic;
    const v8 n = shifted - magic;
    const v8 r = x - n * 0.693359375f + n * 2.12194440e-4f;
    v8 y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.f;
    const i8 exponent = ((i8)shifted - 0x4B400000) << 23;  // n in the bits of an exponent
    return (v8)(((i8)y + exponent) & keep);
}

template <int V>
inline void softmax(v8 *x) {
    v8 top = x[0], sum = {};
    for (int v = 1; v < V; v++) top = larger(top, x[v]);
    top = reduce(top, larger);
    for (int v = 0; v < V; v++) sum += x[v] = exp_v8(x[v] - top);
    const v8 scale = 1.f / reduce(sum, plus);
    for (int v = 0; v < V; v++) x[v] *= scale;
}

// One kernel of the CRF: its lattice, the messages of this iteration and the sums of the next.
struct Term {
    const Lattice *lattice;
    float weight;
    v8 *messages, *sums;
};

template <int V, int D>
inline void slice(const Term &term, int64_t begin, int count, bool symmetric, v8 (*q)[V]) {
    const Lattice &l = *term.lattice;
    for (int p = 0; p < count; p++) {
        const int64_t i = begin + p;
        v8 message[V] = {};
        gather<v8, V, D>(message, term.messages, l.slice_row + i * D, l.weight + i * D);
        const float norm = term.weight * (symmetric ? l.norm[i] : l.norm[i] * l.norm[i]);
        for (int v = 0; v < V; v++) q[p][v] += message[v] * norm;
    }
}

template <int V, int D>
inline void splat(const Term &term, int64_t begin, int count, bool symmetric, v8 (*q)[V]) {
    const Lattice &l = *term.lattice;
    for (int p = 0; p < count; p++) {
        const int64_t i = begin + p;
        v8 value[V];
        for (int v = 0; v < V; v++) value[v] = symmetric ? q[p][v] * l.norm[i] : q[p][v];
        scatter<v8, V, D>(value, term.sums, l.splat_rows() + i * D, l.weight + i * D);
    }
}

// Q = softmax(−U + messages) of one strip, added into the sums; kept when it is the last. A block's
// pixels go through every stage together, so that the processor has independent work at any time.
template <int V>
void update(const std::vector<Term> &terms, int s, v8 *minus_unary, bool symmetric, bool first,
            bool last) {
    const std::vector<int64_t> &strip = terms[0].lattice->strip;
    for (int64_t begin = strip[s]; begin < strip[s + 1]; begin += BLOCK) {
        const int count = static_cast<int>(std::min<int64_t>(BLOCK, strip[s + 1] - begin));
        v8 q[BLOCK][V];
        std::memcpy(q, minus_unary + begin * V, count * sizeof(q[0]));
        if (!first)
            for (const Term &term : terms)
                (term.lattice->corners == 3 ? slice<V, 3> : slice<V, 6>)(term, begin, count,
                                                                         symmetric, q);
        for (int p = 0; p < count; p++) softmax<V>(q[p]);
        if (last)
            std::memcpy(minus_unary + begin * V, q, count * sizeof(q[0]));
        else
            for (const Term &term : terms)
                (term.lattice->corners == 3 ? splat<V, 3> : splat<V, 6>)(term, begin, count,
                                                                         symmetric, q);
    }
}

template <int V>
void mean_field(const float *unary, float *refined, int labels, std::vector<Term> terms,
                int iterations, bool symmetric) {
    const Lattice &any = *terms[0].lattice;
    const int64_t n = any.pixels;
    const int strips = any.strips, width = V * 8;
    Buffer<v8> minus_unary(n * V);
    float *rows = reinterpret_cast<float *>(static_cast<v8 *>(minus_unary));
    std::vector<Buffer<v8>> tables;
    for (Term &term : terms) {
        for (v8 **table : {&term.messages, &term.sums}) {
            tables.emplace_back(term.lattice->rows() * V);
            *table = tables.back();
#pragma omp parallel for num_threads(strips) schedule(static)
            for (int64_t i = 0; i < term.lattice->rows() * V; i++) (*table)[i] = v8{};
        }
    }
#pragma omp parallel for num_threads(strips) schedule(static)
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < width; c++) rows[i * width + c] = c < labels ? -unary[c * n + i] : -1e30f;
    for (int iteration = 0; iteration <= iterations; iteration++) {
        if (iteration)
            for (Term &term : terms) {
                blur<v8, V>(*term.lattice, term.sums, term.messages);
                std::swap(term.sums, term.messages);
            }
#pragma omp parallel for num_threads(strips) schedule(static, 1)
        for (int s = 0; s < strips; s++)
            update<V>(terms, s, minus_unary, symmetric, iteration == 0, iteration == iterations);
    }
#pragma omp parallel for num_threads(strips) schedule(static)
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < labels; c++) refined[c * n + i] = rows[i * width + c];
}

// ------------------------------------------------------------------------------ C interface

template <int... Vs>
bool dispatch(const float *unary, float *refined, int labels, const std::vector<Term> &terms,
              int iterations, bool symmetric) {
    return ((labels <= Vs * 8 &&
             (mean_field<Vs>(unary, refined, labels, terms, iterations, symmetric), true)) ||
            ...);
}

extern "C" {

// elevated: (D,N). Returns a lattice for lattice_free, or null when out of memory.
Lattice *lattice_new(const float *elevated, int64_t n, int corners, const int64_t *low,
                     const int64_t *stride, int64_t phase, int threads) {
    try {
        const int strips = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, n)));
        auto lattice = std::make_unique<Lattice>(n, corners, strips);
        std::vector<VertexTable> tables(strips);
        std::vector<char> failed(strips);  // no exception may leave a parallel region
#pragma omp parallel for num_threads(strips) schedule(static, 1)
        for (int s = 0; s < strips; s++) try {
                (corners == 3 ? embed<3> : embed<6>)(*lattice, s, elevated, low, stride, phase,
                                                    tables[s]);
            } catch (const std::bad_alloc &) {
                failed[s] = 1;
            }
        if (std::count(failed.begin(), failed.end(), 1)) throw std::bad_alloc();
        merge(*lattice, tables);
        find_neighbors(*lattice, tables[0], stride, phase);
        (corners == 3 ? find_norm<3> : find_norm<6>)(*lattice);
        return lattice.release();
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

void lattice_free(Lattice *lattice) { delete lattice; }

// unary, refined: (C,N). Returns 0, 1 when there are too many labels, 2 when out of memory.
int mean_field(const float *unary, float *refined, int labels, Lattice *const *lattices,
               const float *weights, int count, int iterations, int symmetric) {
    try {
        std::vector<Term> terms;
        for (int t = 0; t < count; t++)
            terms.push_back({lattices[t], weights[t] * lattices[t]->alpha(), nullptr, nullptr});
        return dispatch<1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32>(unary, refined, labels, terms,
                                                            iterations, symmetric)
                   ? 0
                   : 1;
    } catch (const std::bad_alloc &) {
        return 2;
    }
}
}
