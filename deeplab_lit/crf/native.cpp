// The `native` backend: mean-field inference of the dense CRF on permutohedral lattices.
//
// Same mathematics as mean_field.py and permutohedral.py (read those first); this file is about
// memory. Label scores live in rows of V vectors of 8 floats, padded with labels of probability 0.
// One pass over the pixels slices the messages, takes the softmax and splats into the next
// iteration's tables, block by block. The blur walks along chains of vertices and reads and writes
// each row once, in place. Pixels are divided into one strip a thread; a vertex that two strips
// touch has a copy for the later one, added up before the blur. Hence no atomics, and the same
// result on every run with as many threads. README.md beside this has what was measured.
//
// C interface for ctypes at the end. Letters: C labels, N pixels, D = d + 1, M vertices.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <vector>
#ifdef __linux__
#include <sys/mman.h>
#endif
#ifndef _WIN32
#include <pthread.h>
#endif

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));

constexpr int BLOCK = 16;       // pixels whose hash slots are fetched together
constexpr int MAX_CORNERS = 6;  // 5 features
constexpr uint32_t FIRST = 1u << 31;  // flag of a vertex that begins a chain
constexpr size_t HUGE_PAGE = 2 << 20;
constexpr size_t KEPT = 256 << 20;  // bytes of memory for the next images
constexpr float ALMOST_ZERO = 1e-20f;

struct Block {
    void *memory;
    size_t bytes;
};

// Keeps memory for the next image: the system would clear each page that it hands out.
class Shelf {
  public:
    Shelf() { blocks_.reserve(KEPT / HUGE_PAGE); }  // none is smaller: `put` takes no memory

    // The smallest block that is large enough, but not far too large; or null.
    Block take(size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        size_t best = blocks_.size();
        for (size_t i = 0; i < blocks_.size(); i++)
            if (blocks_[i].bytes >= bytes && blocks_[i].bytes <= 2 * bytes &&
                (best == blocks_.size() || blocks_[i].bytes < blocks_[best].bytes))
                best = i;
        return best < blocks_.size() ? remove(best) : Block{nullptr, 0};
    }

    // Frees the oldest blocks where there are too many.
    void put(Block block) noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (block.bytes > KEPT) return std::free(block.memory);
        while (bytes_ + block.bytes > KEPT) std::free(remove(0).memory);
        blocks_.push_back(block);
        bytes_ += block.bytes;
    }

    void clear() {
        const std::lock_guard<std::mutex> lock(mutex_);
        while (!blocks_.empty()) std::free(remove(0).memory);
    }

    void lock() { mutex_.lock(); }
    void unlock() { mutex_.unlock(); }

  private:
    std::mutex mutex_;
    std::vector<Block> blocks_;
    size_t bytes_ = 0;

    Block remove(size_t i) {
        const Block block = blocks_[i];
        blocks_.erase(blocks_.begin() + i);
        bytes_ -= block.bytes;
        return block;
    }
};

Shelf shelf;

#ifndef _WIN32
// A process that is forked while a thread has the lock would wait for it forever.
const int at_fork = pthread_atfork([] { shelf.lock(); }, [] { shelf.unlock(); },
                                   [] { shelf.unlock(); });
#endif

// Memory for tables: uninitialized, in huge pages where the system has them.
template <class T>
class Buffer {
  public:
    explicit Buffer(int64_t size = 0) {
        const size_t bytes = (size * sizeof(T) + HUGE_PAGE) / HUGE_PAGE * HUGE_PAGE;
        Block block = shelf.take(bytes);
        if (!block.memory) {
            block = {std::aligned_alloc(HUGE_PAGE, bytes), bytes};
            if (!block.memory) {
                shelf.clear();
                block.memory = std::aligned_alloc(HUGE_PAGE, bytes);
            }
            if (!block.memory) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
            madvise(block.memory, bytes, MADV_HUGEPAGE);
#endif
        }
        data_ = {static_cast<T *>(block.memory), Return{block.bytes}};
    }
    operator T *() const { return data_.get(); }

  private:
    struct Return {
        size_t bytes;
        void operator()(void *memory) const { shelf.put({memory, bytes}); }
    };
    std::unique_ptr<T, Return> data_;
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
    int64_t vertices = 0;             // M; row 0 of every table is not used
    std::vector<int64_t> strip;       // strip s has the pixels strip[s]…strip[s+1]−1
    std::vector<int64_t> first_own;   // vertices from first_own[s] are touched by strip s first
    std::vector<uint32_t> copied;     // row M+1+i holds a copy of vertex copied[i]
    std::vector<int64_t> first_copy;  // strip s has the copies first_copy[s]…first_copy[s+1]−1
    Buffer<uint32_t> slice_row;       // N×D
    Buffer<uint32_t> splat_row;       // N×D, a copy's row where the strip has one
    Buffer<float> weight;             // N×D, barycentric
    Buffer<uint32_t> chain;           // D×M, each direction's vertices, chain after chain
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
    lattice.first_own.push_back(1);
    lattice.first_copy.assign(2, 0);  // strip 0 has none
    for (int s = 1; s < strips; s++) {
        lattice.first_own.push_back(tables[0].keys.size());
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

// Puts each direction's vertices into chains: one step apart, and at both ends there is no other.
void find_chains(Lattice &lattice, const VertexTable &table, const int64_t *stride, int64_t phase) {
    const int64_t rows = lattice.vertices + 1;
    const int corners = lattice.corners;
    const int64_t all_strides = std::accumulate(stride, stride + corners, int64_t{0});
    lattice.chain = Buffer<uint32_t>(corners * lattice.vertices);
    Buffer<uint32_t> following(corners * rows);  // the vertex one step on, or 0
#pragma omp parallel for num_threads(lattice.strips) schedule(dynamic)
    for (int j = 0; j < corners; j++) {
        uint32_t *next = following + j * rows;  // without FIRST's bit: not the first
        std::fill(next, next + rows, FIRST);
        for (int64_t begin = 1; begin < rows; begin += BLOCK) {
            const int64_t end = std::min(begin + BLOCK, rows);
            uint64_t step[BLOCK];
            for (int64_t v = begin; v < end; v++) {
                const uint64_t key = table.keys[v];
                const uint64_t wrapped = key + (corners - 1) * phase - all_strides;
                step[v - begin] =
                    (key < static_cast<uint64_t>(phase) ? wrapped : key - phase) + stride[j];
                table.prefetch(step[v - begin]);
            }
            for (int64_t v = begin; v < end; v++) {
                const uint32_t other = table.find(step[v - begin]);
                next[v] |= other;
                if (other) next[other] &= ~FIRST;
            }
        }
        uint32_t *chain = lattice.chain + j * lattice.vertices;
        for (int64_t first = 1; first < rows; first++) {
            if (!(next[first] & FIRST)) continue;
            *chain++ = static_cast<uint32_t>(first) | FIRST;
            for (uint32_t v = next[first] & ~FIRST; v; v = next[v]) *chain++ = v;
        }
    }
}

// ------------------------------------------------------------------------ splat, blur, slice

// A table's rows have V entries of type T: one float for the norm, v8 for label scores.
template <class T, int V, int D>
inline void gather(T *sum, const T *table, const uint32_t *rows, const float *weight) {
    for (int k = 0; k < D; k++) {
        const T *row = table + int64_t{rows[k]} * V;
        for (int v = 0; v < V; v++) sum[v] += row[v] * weight[k];
    }
}

template <class T, int V, int D>
inline void scatter(const T *value, T *table, const uint32_t *rows, const float *weight) {
    for (int k = 0; k < D; k++) {
        T *row = table + int64_t{rows[k]} * V;
        for (int v = 0; v < V; v++) row[v] += value[v] * weight[k];
    }
}

// row ← row + (row before + row after)/2 along strip s of a direction's chains.
template <class T, int V>
void blur_chains(T *table, const uint32_t *chain, const Lattice &lattice, int s) {
    const int64_t m = lattice.vertices;
    int64_t begin = m * s / lattice.strips, end = m * (s + 1) / lattice.strips;
    while (begin < m && !(chain[begin] & FIRST)) begin++;  // no chain is cut in two
    while (end < m && !(chain[end] & FIRST)) end++;
    if (begin >= end) return;
    auto row = [&](int64_t i) { return table + int64_t{chain[i] & ~FIRST} * V; };
    T *at = row(begin);
    T here[V], half_before[V] = {};
    std::copy(at, at + V, here);
    for (int64_t i = begin; i < end; i++) {
        const T *ahead = row(std::min(i + BLOCK, m - 1));
        for (int v = 0; v < V; v += 2) __builtin_prefetch(ahead + v);  // a cache line is two v8
        const int64_t next = std::min(i + 1, end - 1);
        const float half = i + 1 == end || chain[next] & FIRST ? 0.f : 0.5f;
        T *after = row(next);
        for (int v = 0; v < V; v++) {
            const T unblurred = after[v];
            at[v] = here[v] + (unblurred * half + half_before[v]);
            half_before[v] = here[v] * half;
            here[v] = unblurred;
        }
        at = after;
    }
}

// Adds up the strips' copies, then blurs along every direction.
template <class T, int V>
void blur(const Lattice &lattice, T *table) {
    const int64_t rows = lattice.vertices + 1;
#pragma omp parallel num_threads(lattice.strips)
    {
        for (int s = 1; s < lattice.strips; s++) {
#pragma omp for schedule(static)
            for (int64_t i = lattice.first_copy[s]; i < lattice.first_copy[s + 1]; i++)
                for (int v = 0; v < V; v++)
                    table[int64_t{lattice.copied[i]} * V + v] += table[(rows + i) * V + v];
        }
        for (int j = 0; j < lattice.corners; j++) {
#pragma omp for schedule(static, 1)
            for (int s = 0; s < lattice.strips; s++)
                blur_chains<T, V>(table, lattice.chain + j * lattice.vertices, lattice, s);
        }
    }
}

template <int D>
void find_norm(Lattice &lattice) {
    const Buffer<float> sums(lattice.rows());
    float *table = sums;
    std::fill(table, table + lattice.rows(), 0.f);
    const uint32_t *rows = lattice.splat_rows();
    const float one = 1;
#pragma omp parallel for num_threads(lattice.strips) schedule(static, 1)
    for (int s = 0; s < lattice.strips; s++)
        for (int64_t i = lattice.strip[s]; i < lattice.strip[s + 1]; i++)
            scatter<float, 1, D>(&one, table, rows + i * D, lattice.weight + i * D);
    blur<float, 1>(lattice, table);
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

// Each stage for all pixels of a block: those of one pixel wait for one another.
template <int V>
inline void softmax(v8 (*q)[V], int count) {
    float top[BLOCK], scale[BLOCK];
    for (int p = 0; p < count; p++) {
        v8 most = q[p][0];
        for (int v = 1; v < V; v++) most = larger(most, q[p][v]);
        top[p] = reduce(most, larger)[0];
    }
    for (int p = 0; p < count; p++) {
        v8 sum = {};
        for (int v = 0; v < V; v++) sum += q[p][v] = exp_v8(q[p][v] - top[p]);
        scale[p] = reduce(sum, plus)[0];
    }
    for (int p = 0; p < BLOCK; p++) scale[p] = 1 / scale[p];
    for (int p = 0; p < count; p++)
        for (int v = 0; v < V; v++) q[p][v] *= scale[p];
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

// Rows of the sums that a strip has not added to yet: it zeroes them just before it does. Its
// pixels come to its own vertices, and to its copies, in the order of their numbers.
class Untouched {
  public:
    Untouched(const Lattice &lattice, int s)
        : copies_(lattice.vertices + 1), next_own_(lattice.first_own[s]),
          next_copy_(copies_ + lattice.first_copy[s]) {}

    // Zeroes table[rows[0]…rows[count−1]] as far as this is the first time.
    template <int V>
    void zero(v8 *table, const uint32_t *rows, int count) {
        int64_t last_own = 0, last = 0;
        for (int i = 0; i < count; i++) {
            last_own = std::max<int64_t>(last_own, rows[i] < copies_ ? rows[i] : 0);
            last = std::max<int64_t>(last, rows[i]);
        }
        for (; next_own_ <= last_own; next_own_++) std::fill_n(table + next_own_ * V, V, v8{});
        for (; next_copy_ <= last; next_copy_++) std::fill_n(table + next_copy_ * V, V, v8{});
    }

  private:
    int64_t copies_, next_own_, next_copy_;
};

// Q = softmax(−U + messages) of one strip, added into the sums. The first time U is brought into
// rows, and there are no messages; the last time Q is written to `refined`. A block's pixels go
// through every stage together, so that the processor has independent work at any time.
template <int V>
void update(const std::vector<Term> &terms, int s, const float *unary, v8 *minus_unary,
            float *refined, int labels, bool symmetric, bool first, bool last) {
    const Lattice &any = *terms[0].lattice;
    std::vector<Untouched> untouched;
    for (const Term &term : terms) untouched.emplace_back(*term.lattice, s);
    for (int64_t begin = any.strip[s]; begin < any.strip[s + 1]; begin += BLOCK) {
        const int count = static_cast<int>(std::min<int64_t>(BLOCK, any.strip[s + 1] - begin));
        v8 q[BLOCK][V], *u = minus_unary + begin * V;
        float *scores = reinterpret_cast<float *>(q);
        if (first) {
            std::fill_n(scores, BLOCK * V * 8, -1e30f);
            for (int c = 0; c < labels; c++)
                for (int p = 0; p < count; p++)
                    scores[p * V * 8 + c] = -unary[c * any.pixels + begin + p];
            std::copy(q[0], q[count], u);
        } else {
            std::copy(u, u + count * V, q[0]);
            for (const Term &term : terms)
                (term.lattice->corners == 3 ? slice<V, 3> : slice<V, 6>)(term, begin, count,
                                                                         symmetric, q);
        }
        softmax<V>(q, count);
        if (last)
            for (int c = 0; c < labels; c++)
                for (int p = 0; p < count; p++)
                    refined[c * any.pixels + begin + p] = scores[p * V * 8 + c];
        else
            for (size_t t = 0; t < terms.size(); t++) {
                const int corners = terms[t].lattice->corners;
                untouched[t].zero<V>(terms[t].sums,
                                     terms[t].lattice->splat_rows() + begin * corners,
                                     count * corners);
                (corners == 3 ? splat<V, 3> : splat<V, 6>)(terms[t], begin, count, symmetric, q);
            }
    }
}

template <int V>
void mean_field(const float *unary, float *refined, int labels, std::vector<Term> terms,
                int iterations, bool symmetric) {
    const Lattice &any = *terms[0].lattice;
    const Buffer<v8> minus_unary(any.pixels * V);
    std::vector<Buffer<v8>> tables;
    for (Term &term : terms)
        for (v8 **table : {&term.messages, &term.sums}) {
            tables.emplace_back(term.lattice->rows() * V);
            *table = tables.back();
        }
    for (int iteration = 0; iteration <= iterations; iteration++) {
        if (iteration)
            for (Term &term : terms) {
                blur<v8, V>(*term.lattice, term.sums);
                std::swap(term.sums, term.messages);
            }
#pragma omp parallel for num_threads(any.strips) schedule(static, 1)
        for (int s = 0; s < any.strips; s++)
            update<V>(terms, s, unary, minus_unary, refined, labels, symmetric, iteration == 0,
                      iteration == iterations);
    }
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
        find_chains(*lattice, tables[0], stride, phase);
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
