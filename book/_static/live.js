// Explanations of any class, computed in the page from what xailib/report/figures/live.py wrote:
// class activation maps from a layer's maps and the output layer's weights, LIME from its samples.
(function () {
  "use strict";
  const { xailib } = window;
  const arrived = new Map(), waiting = new Map();
  const TYPES = { float32: Float32Array, float16: Uint16Array, uint16: Uint16Array, uint8: Uint8Array };

  // A script, as a page that is opened from a disk may fetch nothing else, calls this when it is there.
  function take(name, entries) { arrived.set(name, entries); }

  function load(source, name) {
    if (!waiting.has(name)) {
      waiting.set(name, new Promise((resolve, reject) => {
        const failed = () => { waiting.delete(name); reject(new Error(`${source} cannot be loaded`)); };
        const script = xailib.element("script", { src: source, onload: () => unpack(arrived.get(name)).then(resolve, failed), onerror: failed });
        document.head.append(script);
      }));
    }
    return waiting.get(name);
  }

  async function unpack(entries) {
    const found = {};
    for (const [key, value] of Object.entries(entries)) {
      const nested = value && typeof value === "object" && !Array.isArray(value);
      found[key] = value && value.data ? await array(value) : nested ? await unpack(value) : value;
    }
    return found;
  }

  // Bytes of one place in all numbers stand together, deflated: see `packed` in live.py.
  async function array({ type, shape, data }) {
    const text = atob(data), deflated = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) deflated[i] = text.charCodeAt(i);
    const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    const width = TYPES[type].BYTES_PER_ELEMENT, count = planes.length / width, bytes = new Uint8Array(planes.length);
    for (let plane = 0; plane < width; plane++) for (let i = 0; i < count; i++) bytes[i * width + plane] = planes[plane * count + i];
    const values = new TYPES[type](bytes.buffer);
    return { shape, values: type === "float16" ? halves(values) : values };
  }

  function halves(codes) {
    const table = new Float32Array(65536);
    for (let code = 0; code < 65536; code++) {
      const exponent = (code >> 10) & 31, part = code & 1023, sign = code & 32768 ? -1 : 1;
      table[code] = sign * (exponent ? 2 ** (exponent - 15) * (1 + part / 1024) : 2 ** -14 * (part / 1024));
    }
    return Float32Array.from(codes, (code) => table[code]);
  }

  // The layer's maps with each one's mean, and of the weights the mean over all classes; made once.
  function prepared(photograph, network) {
    if (!photograph.maps) {
      const [channels, rows, columns] = photograph.levels.shape, cells = rows * columns;
      const maps = new Float64Array(channels * cells), means = new Float64Array(channels);
      for (let k = 0; k < channels; k++) {
        for (let i = k * cells; i < (k + 1) * cells; i++) {
          maps[i] = photograph.low.values[k] + photograph.step.values[k] * photograph.levels.values[i];
          means[k] += maps[i] / cells;
        }
      }
      photograph.maps = { maps, means, grid: [rows, columns] };
    }
    if (!network.mean) {
      const [classes, channels] = network.weights.shape;
      network.mean = new Float64Array(channels);
      for (let i = 0; i < classes * channels; i++) network.mean[i % channels] += network.weights.values[i] / classes;
    }
    return photograph.maps;
  }

  // The weighted sum of the layer's maps. Behind an average pool, the gradient of a score is its
  // class's weights over the number of cells (so Grad-CAM is CAM), and a channel that is taken away
  // takes its mean times its weight with it (AblationCAM; scores are centred, as in Python).
  function heatmap(method, photograph, network, target) {
    const { maps, means, grid } = prepared(photograph, network);
    const cells = grid[0] * grid[1], channels = means.length, found = new Float64Array(cells);
    const scores = photograph.logits.values, row = target * channels;
    const centred = !photograph.independent; // a softmax sees no constant, sigmoids do
    const level = centred ? scores.reduce((sum, score) => sum + score, 0) / scores.length : 0;
    const whole = Math.abs(scores[target] - level) || Number.MIN_VALUE;
    for (let k = 0; k < channels; k++) {
      const weight = network.weights.values[row + k];
      const share = method === "ablationcam" ? (means[k] * (weight - (centred ? network.mean[k] : 0))) / whole : weight / cells;
      for (let i = 0; i < cells; i++) found[i] += share * maps[k * cells + i];
    }
    return { values: found, grid };
  }

  // OpenCV's bilinear enlargement: centres of cells meet centres of pixels, edges are continued.
  function enlarged({ values, grid: [rows, columns] }, [height, width]) {
    const found = new Float64Array(height * width);
    const steps = (many, few) => Array.from({ length: many }, (_, i) => {
      const place = Math.min(Math.max(((i + 0.5) * few) / many - 0.5, 0), few - 1);
      return [Math.floor(place), Math.min(Math.floor(place) + 1, few - 1), place - Math.floor(place)];
    });
    const across = steps(width, columns), line = new Float64Array(columns);
    steps(height, rows).forEach(([top, bottom, down], y) => {
      for (let x = 0; x < columns; x++) line[x] = values[top * columns + x] * (1 - down) + values[bottom * columns + x] * down;
      for (let x = 0; x < width; x++) {
        const step = across[x];
        found[y * width + x] = line[step[0]] * (1 - step[2]) + line[step[1]] * step[2];
      }
    });
    return found;
  }

  function highest(values) {
    let found = -Infinity;
    for (let i = 0; i < values.length; i++) if (values[i] > found) found = values[i];
    return found;
  }
  function lowest(values) {
    let found = Infinity;
    for (let i = 0; i < values.length; i++) if (values[i] < found) found = values[i];
    return found;
  }

  function unit(values) {
    const low = lowest(values), span = 1e-7 + highest(values) - low, found = new Float64Array(values.length);
    for (let i = 0; i < values.length; i++) found[i] = (values[i] - low) / span;
    return found;
  }

  // As grad-cam shows a map: negative parts clipped, scaled, enlarged, scaled again.
  function saliency(raw, size) {
    const clipped = { values: unit(raw.values.map((value) => Math.max(value, 0))), grid: raw.grid }; // a few cells
    return unit(enlarged(clipped, size));
  }

  // What each sample of LIME shows, as lists of superpixels.
  function samples(lime) {
    if (!lime.lists) {
      const [count, superpixels] = lime.shown.shape;
      lime.lists = Array.from({ length: count }, (_, i) => {
        const row = lime.shown.values.subarray(i * superpixels, (i + 1) * superpixels);
        return Uint16Array.from(Array.from(row.keys()).filter((part) => row[part]));
      });
    }
    return lime.lists;
  }

  // lime's ridge regression (penalty 1, free intercept) of a class's probability on what the first
  // samples show, weighted by their closeness to the whole image; `counts`: how often each takes part.
  function ridge(lime, column, { count = lime.shown.shape[0], width = 0.25, counts = null } = {}) {
    const lists = samples(lime), superpixels = lime.shown.shape[1], total = lime.shown.shape[0];
    const scores = lime.probabilities.values.subarray(column * total, (column + 1) * total);
    const moments = new Float64Array(superpixels * superpixels), pull = new Float64Array(superpixels);
    let mass = 0, level = 0;
    for (let i = 0; i < count; i++) {
      const list = lists[i], distance = 1 - Math.sqrt(list.length / superpixels);
      const near = Math.sqrt(Math.exp(-(distance * distance) / (width * width))) * (counts ? counts[i] : 1);
      if (!near) continue;
      mass += near;
      level += near * scores[i];
      for (let a = 0; a < list.length; a++) {
        const row = list[a] * superpixels;
        pull[list[a]] += near * scores[i];
        for (let b = 0; b <= a; b++) moments[row + list[b]] += near;
      }
    }
    const shown = Float64Array.from({ length: superpixels }, (_, a) => moments[a * superpixels + a]);
    for (let a = 0; a < superpixels; a++) {
      for (let b = 0; b <= a; b++) moments[a * superpixels + b] -= (shown[a] * shown[b]) / mass;
      moments[a * superpixels + a] += 1;
      pull[a] -= (level * shown[a]) / mass;
    }
    return solved(moments, pull, superpixels);
  }

  // By Cholesky's factors, in place.
  function solved(matrix, right, n) {
    for (let a = 0; a < n; a++) {
      for (let b = 0; b <= a; b++) {
        let sum = matrix[a * n + b];
        for (let k = 0; k < b; k++) sum -= matrix[a * n + k] * matrix[b * n + k];
        matrix[a * n + b] = a === b ? Math.sqrt(sum) : sum / matrix[b * n + b];
      }
    }
    for (let a = 0; a < n; a++) {
      for (let k = 0; k < a; k++) right[a] -= matrix[a * n + k] * right[k];
      right[a] /= matrix[a * n + a];
    }
    for (let a = n - 1; a >= 0; a--) {
      for (let k = a + 1; k < n; k++) right[a] -= matrix[k * n + a] * right[k];
      right[a] /= matrix[a * n + a];
    }
    return right;
  }

  // The same numbers for the same seed, so that an address shows what its sender saw.
  function generator(seed) {
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  // How often each sample takes part in a bootstrap: blocks with replacement; the first always does.
  function resampled(lime, count, random) {
    const counts = new Float64Array(count), blocks = Math.ceil(count / lime.block);
    const add = (block) => { for (let i = block * lime.block; i < Math.min(count, (block + 1) * lime.block); i++) counts[i] += 1; };
    add(0);
    for (let drawn = 1; drawn < blocks; drawn++) add(1 + Math.floor(random() * (blocks - 1)));
    return counts;
  }

  // The superpixels of largest positive weight.
  function supporters(weights, features) {
    const order = Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a]);
    return order.filter((part) => weights[part] > 0).slice(0, features);
  }

  function limeMask(lime, chosen) {
    const parts = lime.segments.values, inside = new Uint8Array(highest(parts) + 1), mask = new Uint8Array(parts.length);
    chosen.forEach((part) => { inside[part] = 1; });
    for (let i = 0; i < parts.length; i++) mask[i] = inside[parts[i]];
    return mask;
  }

  // The value that only so many others reach: those of one of many bins are sorted, not all.
  function nth(values, rank) {
    const low = lowest(values), scale = 4095 / (highest(values) - low || 1), bins = new Uint32Array(4096), same = [];
    for (let i = 0; i < values.length; i++) bins[Math.floor((values[i] - low) * scale)] += 1;
    let bin = 4095, above = 0;
    while (above + bins[bin] < rank) { above += bins[bin]; bin -= 1; }
    for (let i = 0; i < values.length; i++) if (Math.floor((values[i] - low) * scale) === bin) same.push(values[i]);
    return Float64Array.from(same).sort()[same.length - (rank - above)];
  }

  // Exactly so many of the highest pixels; ties, such as zeros, are broken at random.
  function areaMask(values, area) {
    const count = values.length, mask = new Uint8Array(count);
    if (area <= 0) return mask;
    let left = Math.min(area, count);
    const cut = nth(values, left), ties = [];
    for (let i = 0; i < count; i++) {
      if (values[i] > cut) { mask[i] = 1; left -= 1; } else if (values[i] === cut) ties.push(i);
    }
    const random = generator(1), keys = new Float64Array(ties.length);
    for (let i = 0; i < keys.length; i++) keys[i] = random() + i * 1e-12; // no two alike
    const last = left === keys.length ? Infinity : nth(keys, keys.length - left + 1);
    for (let i = 0; i < keys.length; i++) if (keys[i] <= last) mask[ties[i]] = 1;
    return mask;
  }

  function thresholdMask(values, threshold) {
    const mask = new Uint8Array(values.length);
    for (let i = 0; i < mask.length; i++) mask[i] = values[i] > threshold ? 1 : 0;
    return mask;
  }

  function area(mask) {
    let sum = 0;
    for (let i = 0; i < mask.length; i++) sum += mask[i];
    return sum;
  }

  function iou(one, other) {
    let both = 0, either = 0;
    for (let i = 0; i < one.length; i++) { both += one[i] & other[i]; either += one[i] | other[i]; }
    return either ? both / either : NaN;
  }

  let logs = new Float64Array(1);
  // The mean IoU of two random masks of these areas: their intersection is hypergeometric.
  function chance(one, other, total) {
    if (one + other === 0) return NaN;
    if (logs.length <= total) {
      logs = new Float64Array(total + 1);
      for (let i = 1; i <= total; i++) logs[i] = logs[i - 1] + Math.log(i);
    }
    const constant = logs[one] + logs[total - one] + logs[other] + logs[total - other] - logs[total];
    let mean = 0;
    for (let k = Math.max(0, one + other - total); k <= Math.min(one, other); k++) {
      const ways = logs[k] + logs[one - k] + logs[other - k] + logs[total - one - other + k];
      mean += (Math.exp(constant - ways) * k) / (one + other - k);
    }
    return mean;
  }

  function probability(photograph, target) {
    const scores = photograph.logits.values, top = highest(scores);
    if (photograph.independent) return 1 / (1 + Math.exp(-scores[target]));
    return Math.exp(scores[target] - top) / scores.reduce((sum, score) => sum + Math.exp(score - top), 0);
  }

  xailib.live = {
    take, load, heatmap, saliency, enlarged, ridge, generator, resampled, supporters, limeMask, areaMask,
    thresholdMask, area, iou, chance, probability, highest, lowest,
  };
})();
