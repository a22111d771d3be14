"""Faults seeded into the units, each of which the bench must find: those of the core are in sim/test_faults.py."""

__all__ = ["CONVERTER", "UNIT_FAULTS"]

CONVERTER = ("bfp-converter", "--set", "group=4")
SUBNORMAL = (*CONVERTER, "--set", "work=fp16")
FMAC = ("bfp-fmac", "--set", "group=4")
SMALL = (*FMAC, "--set", "accumulator=fp16")
PARALLEL = (*FMAC, "--set", "chunks=parallel")
MX = ("mx-converter", "--set", "block=8")
MX_STOCHASTIC = (*MX, "--set", "rounding=stochastic")
MX_DOT = ("mx-dot", "--set", "block=8", "--set", "lanes=4")
MX_PAIR = (*MX_DOT, "--set", "element_b=fp8-e5m2")
LNS_CONVERTER = ("lns-converter", "--set", "lanes=4")
LNS_DECODER = ("lns-decoder", "--set", "lanes=4")
LNS_DOT = ("lns-dot", "--set", "lanes=4", "--set", "accumulator=24", "--set", "lsb=9")
LNS_BINS = (*LNS_DOT, "--set", "accumulation=bins")
ADDER = ("float-adder", "--set", "format=fp8-e5m2")
ADDER_SMALL = ("float-adder", "--set", 'format={"type": "Float", "exponent": 2, "mantissa": 1}')  # with Inf - Inf
MULTIPLIER = ("float-multiplier", "--set", "format=fp8-e5m2")
FMA = ("float-fma", "--set", "format=fp8-e5m2")
CAST = ("float-cast",)
MAC = ("float-mac", "--set", "format=fp8-e5m2")
CYCLIC = ("precision-cyclic", "--set", "iterations=400", "--set", "cycles=4")
ADAPTIVE = ("precision-adaptive", "--set", "group=4")
ARRAY = ("array", *(word for pair in ("rows=2", "columns=3", "group=4", "memory=256", "buffer=64", "sums=8")
                    for word in ("--set", pair)))
ARRAY_INT8 = ("array", *(word for pair in ("system=int8", "rows=2", "columns=2", "lanes=4", "memory=256", "buffer=64")
                         for word in ("--set", pair)))
ARRAY_SINGLE = (*ARRAY, "--set", "converters=1")
MADAM = ("madam-update",)
MADAM_SHORT = (*MADAM, "--set", "memory=4")  # what is forgotten in a step is more than a code
MADAM_WIDE = (*MADAM, "--set", "gradient=fp16", "--set", "second_bias=48")  # second moments beyond any square
SGD = ("sgd-update", "--set", "format=fp8-e5m2", "--set", "rates=powers")
SGD_SHARED = ("sgd-update", "--set", "format=fp8-e5m2", "--set", "schedule=shared", "--set", "grow=true")
SGD_BARE = (*SGD, "--set", "compensated=false")
SGD_STEADY = ("sgd-update", "--set", "format=fp8-e5m2", "--set", "schedule=shared", "--set", "decays=false")
SGD_BARE_SHARED = (*SGD_BARE, "--set", "schedule=shared")
SGD_GROW = (*SGD, "--set", "grow=true")
SGD_PRODUCTS = ("sgd-update", "--set", "format=fp8-e5m2")
SOFTMAX = ("softmax-grad",)
SOFTMAX_CUT = (*SOFTMAX, "--set", "rounding=truncate", "--set", "classes=3")
SOFTMAX_STOCHASTIC = (*SOFTMAX, "--set", "rounding=stochastic")

# What is wrong: (what stands in the sources once, what it becomes, unit and settings).
UNIT_FAULTS = {
    "converter: a tie is rounded up": (
        "guard & (q[0] | rest_bits.any() | s4.sticky[k])", "guard", CONVERTER),
    "converter: an all-subnormal group is one place off": (
        "m.d.comb += depth.eq(place)", "m.d.comb += depth.eq(place + 1)", SUBNORMAL),
    "converter: random words are drawn by every transfer": (
        "advance & s4.valid & s4.stochastic", "advance & s4.valid", CONVERTER),
    "converter: a stalled output is lost": (
        "fraction\n\n        advance = self.handshake(m)", "fraction\n\n        advance = self.handshake(m, C(1, 1))",
        CONVERTER),
    "fMAC: a stall repeats a transfer": (
        "valid=s1.valid & ~hazard", "valid=s1.valid", FMAC),
    "fMAC: a busy sum is not waited for": (
        "Cat(valid & (slot == other) for valid, other in under_way).any()", "C(0, 1)", FMAC),
    "accumulator: a tie is rounded up": (
        "out.guard & (out.tail | out.kept[0])", "out.guard", FMAC),
    "accumulator: the exponent's end is one too high": (
        "exponent.eq(now.exponent + 2 - now.taken)", "exponent.eq(now.exponent + 1 - now.taken)",
        SMALL),
    "float: a tie is rounded up": (
        "below & (tail | kept[0])", "below", ADDER),
    "float: what is lost of a subtrahend is forgotten": (
        "carry, total = now.apart & ~now.sticky", "carry, total = now.apart", ADDER),
    "float: Inf - Inf is Inf": (
        "(some | (now.apart & ~now.distance.any()))", "some", ADDER_SMALL),
    "float: a difference of zero keeps an exponent": (
        "packed.magnitude & packed.nonzero.replicate(fmt.width - 1)", "packed.magnitude", ADDER),
    "float: an odd shift takes one too many off the exponent": (
        "borrows = [taken[0] & ~kept[-1]]", "borrows = [taken[0]]", ADDER),
    "float: a stall draws a random word": (
        "self._choice else advance & now.valid,", "self._choice else now.valid,",
        (*ADDER, "--set", "rounding=stochastic")),
    "float: a NaN does not stay": (
        "l0.nan | held_nan |", "l0.nan |", MAC),
    "mx dot: a sum of two formats has the width of one": (
        "_worst(a_format) * _worst(b_format)", "_worst(a_format) * _worst(a_format)", MX_PAIR),
    "lns dot: a sum wraps round": (
        "limited.eq(Mux(beyond, Cat((~sign).replicate(bits - 1), sign), kept[:bits]))",
        "limited.eq(kept[:bits])", LNS_DOT),
    "lns dot: a bin takes another one's products": (
        "Cat(logarithm[fine:low] == index", "Cat(logarithm[fine:low] <= index", LNS_BINS),
    "madam: a stall draws a random word": (
        "self._noise(m, advance & now.valid)", "self._noise(m, now.valid)", MADAM),
    "sgd: every method draws a random word": (
        "advance & now.valid & ~now.nearest if", "advance & now.valid if", SGD),
    "sgd: the shared unit compensates with the weight after the step": (
        '"step": (1, "old", 0, 1)', '"step": (1, "product", 0, 1)', SGD_SHARED),
    "softmax: a stalled row loses an exponential": (
        "power.en.eq(advance)", "power.en.eq(1)", SOFTMAX),
    "precision: a cycle is one iteration too long": (
        "now == period - 1", "now == period", CYCLIC),
    "precision: the sums are not halved from code to code": (
        "(combined >> 1) + ", "combined + ", ADAPTIVE),
    "converter: a sticky bit is dropped": (
        "rest_bits.any() | s4.sticky[k]", "rest_bits.any()", CONVERTER),
    "fMAC: a diagonal of chunk products is one place off": (
        "parts.append((word[:start], lower[:2]))", "parts.append((word[:start], lower[1:3]))",
        PARALLEL),
    "accumulator: bits below the window are forgotten": (
        "sticky = sticky | (chosen & lost)", "sticky = sticky", FMAC),
    "float: a flushed result is told by its exponent before rounding": (
        "tiny = ~kept[-1] | field[-1] | ~field.any()", "tiny = ~kept[-1] | top[-1] | ~top.any()",
        (*MULTIPLIER, "--set", "subnormals=flush")),
    "float: casts do not underflow": ("limited = 1 + offset - (p - 1) < 1", "limited = False", CAST),
    "float: a zero product pushes the addend away": (
        "alone = distance[-1] | now.none", "alone = distance[-1]", FMA),
    "float: the one that a complement lacks is not added": (
        "ones = flip & ~tail", "ones = C(0, 1)", FMA),
    "mx converter: an element just below the smallest is not shifted": (
        "apart = ~high.all() | ~low.any()", "apart = ~high.all()", MX),
    "lns decoder: what a power lacks is forgotten": (
        "inexact.append(t[:low].any() if low", "inexact.append(C(0, 1) if low", LNS_DECODER),
    "lns dot: products below lsb are not dropped": (
        "used.append(now.live[k] & ~dropped)", "used.append(now.live[k])", LNS_DOT),
    "madam: a gradient's step is one too high": (
        "steps = [each + 1 - (1 << bits)", "steps = [each + 2 - (1 << bits)", MADAM),
    "precision: a restart is forgotten by the next iteration": (
        "Mux(now == period - 1, 0, now + 1)", "Mux(now == period - 1, 0, position + 1)", CYCLIC),
    "precision: a group of zeros counts for the largest exponent": (
        "(low | high).any()", "C(1, 1)", ADAPTIVE),
    "precision: a sum that is made is not read": ("again=wanted == added_to", "again=C(0, 1)", ADAPTIVE),
    "precision: a sum that is written is not read": ("known=(wanted == written) | ", "known=", ADAPTIVE),
    "precision: a sum that was just written is not read": (" | (wanted == seen)", "", ADAPTIVE),
    "precision: a tensor begins with the sums of the one before": (
        "with m.If(held.walks):", "with m.If(C(0, 1)):", ADAPTIVE),
    "precision: the exponents of the tensor before are kept": (
        "bottom.eq(0), top.eq(0), empty.eq(1), walking.eq(0)", "walking.eq(0)", ADAPTIVE),
    "precision: a ratio that is the threshold is not enough": (
        "numerator) >= Cat(", "numerator) > Cat(", ADAPTIVE),
    "precision: a sum wraps round": (
        "newest.eq(sums | Cat(each.replicate(p.bits) for each in carries))", "newest.eq(sums)",
        (*ADAPTIVE, "--set", "count=1")),
    "precision: a tensor ends while another is compared": (
        " & ~(now.last & busy)", "", ADAPTIVE),
    "precision: a group enters while the sums are walked over": (
        "now.valid & ~walking & ", "now.valid & ", ADAPTIVE),
    "converter: a carry-out is dropped": (
        "full.eq((q & ~Cat(mask, C(0, 1))).any() | (s6.above", "full.eq((s6.above", CONVERTER),
    "converter: lanes in the wrong order": (
        "elements=Cat(elements), exponent", "elements=Cat(reversed(elements)), exponent", CONVERTER),
    "converter: a zero keeps its sign": (
        "s6.negative[k] & magnitude.any()", "s6.negative[k]", CONVERTER),
    "converter: a group above the field does not saturate": (
        "(s6.above & s6.nonzero[k])", "C(0, 1)", CONVERTER),
    "words: a rotation is by one place too many": (
        "(left(s, 26) & left(t, 14))", "(left(s, 27) & left(t, 14))", CONVERTER),
    "words: the registers begin a vector late": (
        "init=STAGES)", "init=STAGES + 1)", CONVERTER),
    "words: the bits of a word are the lowest of its byte": (
        "everything[size * (lane + 1) - bits:size * (lane + 1)]", "everything[size * lane:size * lane + bits]",
        [*CONVERTER, "--set", "random_bits=5"]),
    "words: a key of a step is made from the one before": (
        "m.d.sync += [key.eq(start), step.eq", "m.d.sync += [step.eq", ARRAY),
    "words: the columns have the use of the rows": (
        "product.use ^ side", "product.use", ARRAY),
    "words: a part of an operand has the vectors of the whole": (
        "Mux(product.pitch == 0, final + 1, product.pitch)", "final + 1", ARRAY),
    "converter: NaN is not reported": (
        "invalid=advance & s6.valid & s6.nan", "invalid=C(0, 1)", CONVERTER),
    "fMAC: the last pass is merged without its weight": (
        "Mux(now.shift, merged << 2, merged)", "merged", FMAC),
    "fMAC: the carry of a negative product is dropped": (
        "m.d.sync += merged.eq(sum_with_carry(base, dot, carry))",
        "m.d.sync += merged.eq(base + dot)", FMAC),
    "accumulator: subnormals are normalised away": (
        "take.eq(zero & (free | room))", "take.eq(zero)", SMALL),
    "accumulator: an exact zero keeps a sign": (
        "out.negative & nonzero", "out.negative", FMAC),
    "accumulator: overflow is not reported": (
        "advance & finite_before & now_infinite", "C(0, 1)", SMALL),
    "float: terms that cancel give -0": (
        "(now.cancels & ~packed.nonzero & ~now.infinite)", "C(0, 1)", ADDER),
    "float: a zero keeps an exponent": (
        "top & kept[-1].replicate(len(top))", "top", ADDER),
    "float: a product far below the smallest number wraps round": (
        "(top & ~top[-1].replicate(len(top)))[:-1] if low < 0", "top.as_unsigned()[:-1] if low < 0",
        MULTIPLIER),
    "float: overflow is not reported": (
        "advance & now.valid & lost & ~now.nan", "C(0, 1)", MULTIPLIER),
    "float: bits that were cut off are forgotten": (
        "cut(name, now, value=value, sticky=now.sticky | below",
        "cut(name, now, value=value, sticky=now.sticky", FMA),
    "float: a sum does not know Inf - Inf": (
        "(infinite & l0.infinite & (negative ^ l0.addend[-1]))", "C(0, 1)", MAC),
    "mx dot: a NaN in the first half of a block is forgotten": (
        "bad.eq(now.nan | (bad & ~now.start))", "bad.eq(now.nan)", MX_DOT),
    "lns converter: no logarithm is rounded up": (
        "Cat(always, always | inside, below)", "Cat(always, always, below)", LNS_CONVERTER),
    "lns dot: a subnormal result is one place off": (
        "right = p + 1", "right = p", LNS_DOT),
    "mx converter: subnormal numbers are normalised half way": (
        "left = min(max(fmt.bias, 1),", "left = min(max(fmt.bias - 4, 1),", MX),
    "mx converter: bits that were cut off do not count": (
        "below | value[:-kept].any() | now.below[k]", "below | value[:-kept].any()", MX),
    "mx converter: an element above the largest is not saturated": (
        "code.eq(Mux(now.over[k], fmt.max_code, now.magnitudes[k]))", "code.eq(now.magnitudes[k])",
        MX),
    "mx converter: a NaN block keeps its scale": (
        "scale=now.scale | now.special.replicate(8)", "scale=now.scale", MX),
    "mx converter: a NaN block keeps its elements": (
        "element & ~now.special.replicate(magnitude + 1)", "element", MX),
    "mx converter: even rounds up at a bit too few": (
        "value[-fmt.mantissa - 2:-1].all()", "value[-fmt.mantissa - 1:-1].all()",
        (*MX, "--set", "scale_rule=even")),
    "mx converter: rceil takes the largest element for too large": (
        "(fraction == limit) & rest", "(fraction == limit)", (*MX, "--set", "scale_rule=rceil")),
    "mx converter: ceil forgets the low bits": (
        "above = value[:-1].any() | below", "above = value[:-1].any()", (*MX, "--set", "scale_rule=ceil")),
    "mx converter: a negative integer is one too large": (
        "sign.replicate(magnitude + 1)) + sign)", "sign.replicate(magnitude + 1)))",
        (*MX, "--set", "element=int8")),
    "mx converter: random words are drawn by no transfer": (
        "lane_words(self, m, advance & now.valid, seed=parameters.seed, lanes=lanes, bits=mode.bits)",
        "lane_words(self, m, advance, seed=parameters.seed, lanes=lanes, bits=mode.bits)", MX_STOCHASTIC),
    "mx dot: an element that is NaN counts as a number": (
        "nan = nan | a_bad | b_bad", "nan = nan | a_bad", MX_DOT),
    "mx dot: a transfer begins with the sum of the one before": (
        "Mux(now.start, 0, merged).as_signed()", "merged", MX_DOT),
    "mx dot: the block is accepted before its last elements": (
        "self.i.ready.eq(advance & final)\n        with", "self.i.ready.eq(advance)\n        with", MX_DOT),
    "mx dot: the field of a product is one place off": (
        "a_format.unit + b_format.unit", "a_format.unit + b_format.unit + 1", MX_DOT),
    "mx dot: the lowest bits of both operands are taken for equal": (
        "a_format.unit + b_format.unit", "2 * a_format.unit", MX_PAIR),
    "mx dot: an element of operand b is taken apart like one of operand a": (
        "unpack(m, name, element, code)", "unpack(m, name, self.parameters.element, code)", MX_PAIR),
    "mx dot: the products of two formats are cut off like those of one": (
        "value[:a_format.bits + b_format.bits]", "value[:2 * a_format.bits]", MX_PAIR),
    "mx dot: the places of only one operand count": (
        "(self.format, self.format_b) if", "(self.format,) * 2 if", MX_PAIR),
    "lns converter: the scale is one too large": (
        "least = 1 - octaves", "least = 2 - octaves", LNS_CONVERTER),
    "lns converter: a NaN has a logarithm": (
        "usual = ~special & some", "usual = some", LNS_CONVERTER),
    "lns converter: a given scale is not taken": (
        "scale=Mux(now.given, now.scale, own)", "scale=own", LNS_CONVERTER),
    "lns decoder: a zero is the least number": (
        "& now.live[k].replicate(result.width - 1))", ")", LNS_DECODER),
    "lns decoder: what is shifted out is forgotten": (
        "fill=C(0, 1), sticky=rest)", "fill=C(0, 1))", (*LNS_DECODER, "--set", "result=fp16")),
    "lns dot: zeros multiply": (
        "else a[k][:t].any() & b[k][:t].any() for", "else a[k][:t].any() for", LNS_DOT),
    "lns dot: the one of a negative product is not added": (
        "Mux(now.first, 0, limited).as_signed(), each, carry)",
        "Mux(now.first, 0, limited).as_signed(), each, C(0, 1))", LNS_DOT),
    "lns dot: a bin is used without a part of its constant": (
        "if weight >> shift & 1]",
        "if weight >> shift & 1 and (index, shift) != (3, 2)]", LNS_BINS),
    "madam: a zero weight moves": (
        "Mux(now.zero[k], 0, Cat(", "Mux(C(0, 1), 0, Cat(", MADAM),
    "madam: a second moment below 0 wraps round": (
        "Mux(second[-1], 0, second[parameters", "Mux(C(0, 1), 0, second[parameters", MADAM),
    "madam: a NaN moves the second moment": (
        "Mux(now.nan[k], 0, less[k])", "less[k]", MADAM_SHORT),
    "madam: an Inf counts for nothing": (
        "above.append(infinite |", "above.append(", MADAM_WIDE),
    "madam: a square of 0 counts": (
        "some=Cat(some) & ~now.far.replicate(lanes)", "some=~now.far.replicate(lanes)", MADAM),
    "madam: the table is read while the unit waits": (
        "addresses[k]), port.en.eq(advance)", "addresses[k]), port.en.eq(1)", MADAM),
    "madam: a narrow weight wraps round": (
        "carries = [half & ~high.all()]", "carries = [half]", MADAM),
    "madam: the bound is not kept": (
        "Mux(room[-1], bound, Mux(", "Mux(C(0, 1), bound, Mux(", MADAM),
    "madam: a move off a weight is one too many": (
        "Cat(change, off).as_signed(), off)", "Cat(change, off).as_signed(), C(0, 1))", MADAM),
    "madam: a correction that is far is not": (
        "(correction[near:] ^ correction[near - 1].replicate(CORRECTION - near)).any()",
        "C(0, 1)", MADAM),
    "sgd: a sum to nearest is rounded at random": (
        "adder.i.payload.nearest.eq(now.method != STOCHASTIC)", "adder.i.payload.nearest.eq(0)", SGD),
    "sgd: without compensation every method is plain": (
        "adder.i.payload.nearest.eq(now.method != STOCHASTIC)",
        "adder.i.payload.nearest.eq((now.method != STOCHASTIC) | (not parameters.compensated))", SGD_BARE),
    "sgd: without compensation the shared unit hands its change over": (
        "self.o.payload.weight.eq(sum_)\n        with m.Elif", "self.o.payload.weight.eq(product)\n        with m.Elif",
        SGD_BARE_SHARED),
    "sgd: a tie to nearest is rounded up": (
        "nearest & (tail | kept[0])", "nearest", SGD),
    "sgd: nearest adds a whole half": (
        "(1 << window - 1) - 1, noise)", "1 << window - 1, noise)", SGD),
    "sgd: a stall draws a random word": (
        "advance & now.valid & ~now.nearest if", "now.valid & ~now.nearest if", SGD),
    "sgd: a decay of zero adds +0": (
        'product("decay", now.weight, now.decay, 1)', 'product("decay", now.weight, now.decay)', SGD),
    "sgd: a product of 2 or more is one place off": (
        "more=two & ~now.tiny,", "more=C(0, 1),", SGD_PRODUCTS),
    "sgd: what is shifted out of a small product is forgotten": (
        "fill=C(0, 1), sticky=low)", "fill=C(0, 1), sticky=C(0, 1))", SGD_PRODUCTS),
    "sgd: a rate of zero times Inf is no NaN": (
        "nan=(a.nan | (a.infinite & zero)) & ~neutral)", "nan=a.nan & ~neutral)", SGD),
    "sgd: a gradient that nothing decays is lost": (
        '(0, "gradient", 0, 0),\n            "first"', '(0, "product", 0, 0),\n            "first"', SGD_STEADY),
    "sgd: plain updates are compensated": (
        "now.compensation & now.method[1].replicate(width)", "now.compensation", SGD),
    "sgd: plain updates keep a compensation": (
        "with m.If(~now.method[1]):", "with m.If(C(0, 1)):", SGD),
    "sgd: what growing loses has the other sign": (
        'lost=sum_("lost", now.change, now.moved, 1)',
        'lost=sum_("lost", now.change, now.moved)', SGD_GROW),
    "sgd: the shared unit's growth takes its step from the old weight": (
        'number_of["old"] = Mux(grows, number_of.get("first", 0), number_of["weight"])',
        'number_of["old"] = number_of["weight"]', SGD_SHARED),
    "sgd: the shared unit's result does not wait": (
        "with m.Elif(self.o.ready):", "with m.Else():", SGD_SHARED),
    "sgd: the shared unit always rounds at random": (
        "nearest.eq((place != at[\"weight\"]) | (payload.method != STOCHASTIC))",
        "nearest.eq(payload.method != STOCHASTIC)", SGD_SHARED),
    "sgd: overflow is not reported": (
        "done & self.o.valid & Cat(tops).any() & ~nan", "C(0, 1)", SGD),
    "softmax: a row's sums change while the row waits": (
        "row.en.eq(advance & opens)", "row.en.eq(opens)", SOFTMAX),
    "softmax: the next row's greatest logit comes too soon": (
        "started.eq(full & (read.addr == end) & free)", "started.eq(full & free)", SOFTMAX),
    "softmax: a row's sum goes on from the one before": (
        "m.d.sync += sums.eq(0)", "m.d.sync += sums.eq(sums)", SOFTMAX),
    "softmax: a logarithm is taken of the next row's sum": (
        'stage(m, coarse.valid, "sum",', 'stage(m, ALWAYS, "sum",', SOFTMAX),
    "softmax: a greatest logit that is negative counts as positive": (
        "negative=negative ^ now.start", "negative=negative", SOFTMAX),
    "softmax: halves of logits are rounded down": (
        "rounded, value = now.value[0], now.value[1:]", "rounded, value = C(0, 1), now.value[1:]",
        SOFTMAX),
    "softmax: -0 is below 0": (
        "negative.eq(logit.negative & ~logit.zero)", "negative.eq(logit.negative)",
        (*SOFTMAX, "--set", 'format={"type":"Float","exponent":4,"mantissa":3,"bias":-90}')),
    "softmax: numbers beside a large one wrap round": (
        "beyond=now.large | beside", "beyond=now.large", SOFTMAX),
    "softmax: a distance wraps round": (
        "above = above | now.difference[size:].any()", "above = above", SOFTMAX),
    "softmax: the first row's greatest logit is kept": (
        "with m.If(fresh | (order > greatest)):", "with m.If(order > greatest):", SOFTMAX),
    "softmax: half of a sum's shift is forgotten": (
        "taken=Cat(reversed(first))", "taken=C(0, len(first))", SOFTMAX),
    "softmax: a loss is not limited": (
        "over = now.void | now.rest[p.value + p.integer:].any()", "over = now.void", SOFTMAX),
    "softmax: a NaN spoils the next row as well": (
        "bad.eq(bad & ~fresh | logit.nan)", "bad.eq(bad | logit.nan)", SOFTMAX),
    "softmax: a tie of errors is rounded up": (
        "below[:-1].any() | kept[0]", "C(1, 1)", (*SOFTMAX, "--set", "bits=2")),
    "softmax: a target's error is truncated away from zero": (
        "kept + (target & below.any())", "kept", SOFTMAX_CUT),
    "softmax: a target's noise is not inverted": (
        "noise[len(noise) - window:] ^ target.replicate(window)", "noise[len(noise) - window:]",
        SOFTMAX_STOCHASTIC),
    "softmax: what is below a target's noise is forgotten": (
        "carry = target & rest.any() if len(rest) else C(0, 1)", "carry = C(0, 1)",
        (*SOFTMAX_STOCHASTIC, "--set", "random_bits=2")),
    "softmax: a stall draws a random word": (
        "now.target, advance & now.valid)", "now.target, now.valid)", SOFTMAX_STOCHASTIC),
    "array: what is beyond the reduction axis counts": (
        "each & ((now.tail == 0) | (now.tail > k)).replicate(len(each)) if low else each", "each", ARRAY),
    "array: a column is read like a row": (
        "Mux(vector.transposed, bank - vector.index, vector.index)[:low]", "vector.index[:low]", ARRAY),
    "array: cells without a result have no operands": (
        "to = Mux(last_row, Cat(lane[:k + 1].any() for k in range(self.lanes)), lane)", "to = lane",
        ARRAY),
    "array: vectors that are still needed are overwritten": (
        "self.wants.eq(busy & (Mux(gone_on, room_on, room) | ~begins))",
        "self.wants.eq(busy)", ARRAY),
    "array: a tile begins before its columns are there": (
        "b.there >= b.tile, b.there > b.tile)", "first_there[1], first_there[1])", ARRAY),
    "array: a row that is the last one but one ends its operand": (
        "following.over.eq(now.left <= 2 * lanes)", "following.over.eq(now.left <= 3 * lanes)", ARRAY),
    "array: what the cells do not take in time is lost": (
        "kept.eq(~goes & (kept | comes))", "kept.eq(~goes & comes)", ARRAY),
    "array: a write turns the vector that is being read": (
        "~Mux(payload.multiply, blocked, paths[0].reading)", "~(payload.multiply & blocked)", ARRAY),
    "array: every part of a product starts from +0": (
        "given.first.eq(first & (at == 0))", "given.first.eq(at == 0)", ARRAY),
    "array: the labels of a result that waits move on": (
        "read.en.eq(take)", "read.en.eq(1)", ARRAY),
    "array: room for a row of lanes is that of the one before": (
        "Mux(gone_on, room_on, room)", "room", ARRAY),
    "array: rows and columns have the same random words": (
        "walker.use.eq(product.use ^ side)", "walker.use.eq(product.use)", ARRAY),
    "array: a lone converter takes all rows first": (
        "return ~rows.idle & (~rows.begun | columns.idle)", "return ~rows.idle", ARRAY_SINGLE),
    "int8 converter: a tie is rounded up": (
        "value[0] & (q[0] | now.sticky[k])", "value[0]", ARRAY_INT8),
    "int8 converter: what is too large does not saturate": (
        "(q | full.replicate(MAGNITUDE)) ^", "q ^", ARRAY_INT8),
    "int8 dot: a sum starts from the one before": (
        "Mux(now.first, 0, held).as_signed()", "held", ARRAY_INT8),
    "int8 dot: the scales of only one operand count": (
        "scale.eq(payload.a.scale + payload.b.scale + offset)",
        "scale.eq(payload.a.scale + 125 + offset)", ARRAY_INT8),
    "softmax: an error of 1 wraps round": (
        "number[:-1] | one.replicate(p.bits - 1)", "number[:-1]", SOFTMAX),
}
