// Two units behind a serial line: the fMAC of block floating point, and the weight update with Kahan's compensation.
//
// They are generated with a port for each field (docs/using-units.md):
//   narrowgauge generate bfp-fmac --set accumulator=bf16 --ports fields -o fmac.v
//   narrowgauge generate sgd-update --set schedule=shared --ports fields -o update.v
//
// The host sends a command of one byte and its operands, in whole bytes, the lowest byte first. The answer is in the
// same form. The next command may come when the answer is there, or at once behind an fMAC's that has none.
//   "M": a.elements 10 bytes, a.exponent 1, a.precision 1, the same of b, then a byte: slot [3:0], first [4], last [5].
//        Where `last` is set the answer is the sum, 2 bytes, and its slot, 1.
//   "W": weight, velocity, compensation, gradient, 2 bytes each; method 1; rate, momentum, decay, 2 each.
//        The answer is the new weight, velocity and compensation, 2 bytes each.
`default_nettype none

module top #(parameter DIV = 104) (
  input wire clk,
  input wire rst,
  input wire rx,
  output wire tx,
  output wire [2:0] flags // sticky: overflow of the fMAC; invalid and overflow of the update
);
  localparam [7:0] MULTIPLY = "M", UPDATE = "W";
  localparam [4:0] MULTIPLY_BYTES = 5'd25, UPDATE_BYTES = 5'd15;

  wire [7:0] got;
  wire got_valid;
  uart_receiver #(.DIV(DIV)) receiver (.clk(clk), .rst(rst), .rx(rx), .data(got), .valid(got_valid));

  // Operands come in at the top, so that those of either command end there.
  reg [199:0] operands;
  reg [4:0] left; // bytes of operands still to come
  reg updates; // the command is UPDATE
  reg mac_valid, update_valid;
  wire mac_ready, update_ready;
  wire complete = got_valid && left == 5'd1;
  always @(posedge clk) begin
    if (mac_ready) mac_valid <= 1'b0;
    if (update_ready) update_valid <= 1'b0;
    if (got_valid && left != 5'd0) begin
      operands <= {got, operands[199:8]};
      left <= left - 5'd1;
    end else if (got_valid && got == MULTIPLY) begin
      left <= MULTIPLY_BYTES;
      updates <= 1'b0;
    end else if (got_valid && got == UPDATE) begin
      left <= UPDATE_BYTES;
      updates <= 1'b1;
    end
    if (complete) begin
      mac_valid <= !updates;
      update_valid <= updates;
    end
    if (rst) begin
      left <= 5'd0;
      updates <= 1'b0;
      mac_valid <= 1'b0;
      update_valid <= 1'b0;
      operands <= 200'd0;
    end
  end

  reg [47:0] answer;
  reg [2:0] answer_left; // bytes still to be sent
  wire answer_free = answer_left == 3'd0;
  wire send_ready;

  wire [15:0] sum;
  wire [3:0] sum_slot;
  wire sum_valid;
  bfp_fmac_g16_m4_e8_bf16_fields fmac (
    .clk(clk),
    .rst(rst),
    .i_a_elements(operands[79:0]),
    .i_a_exponent(operands[87:80]),
    .i_a_precision(operands[90:88]),
    .i_b_elements(operands[175:96]),
    .i_b_exponent(operands[183:176]),
    .i_b_precision(operands[186:184]),
    .i_slot(operands[195:192]),
    .i_first(operands[196]),
    .i_last(operands[197]),
    .i_valid(mac_valid),
    .i_ready(mac_ready),
    .o_value(sum),
    .o_slot(sum_slot),
    .o_valid(sum_valid),
    .o_ready(answer_free),
    .overflow(flags[0]),
    .status_clear(1'b0)
  );

  wire [15:0] weight, velocity, compensation;
  wire weight_valid;
  sgd_update_bf16_shared_fields update (
    .clk(clk),
    .rst(rst),
    .i_weight(operands[95:80]),
    .i_velocity(operands[111:96]),
    .i_compensation(operands[127:112]),
    .i_gradient(operands[143:128]),
    .i_method(operands[145:144]),
    .i_lr(operands[165:152]),
    .i_momentum(operands[181:168]),
    .i_decay(operands[197:184]),
    .i_valid(update_valid),
    .i_ready(update_ready),
    .o_weight(weight),
    .o_velocity(velocity),
    .o_compensation(compensation),
    .o_valid(weight_valid),
    .o_ready(answer_free && !sum_valid),
    .invalid(flags[1]),
    .overflow(flags[2]),
    .status_clear(1'b0)
  );

  uart_transmitter #(.DIV(DIV)) transmitter (
    .clk(clk), .rst(rst), .data(answer[7:0]), .valid(!answer_free), .ready(send_ready), .tx(tx)
  );
  always @(posedge clk)
    if (rst) begin
      answer <= 48'd0;
      answer_left <= 3'd0;
    end else if (answer_free) begin
      if (sum_valid) begin
        answer <= {28'd0, sum_slot, sum};
        answer_left <= 3'd3;
      end else if (weight_valid) begin
        answer <= {compensation, velocity, weight};
        answer_left <= 3'd6;
      end
    end else if (send_ready) begin
      answer <= {8'd0, answer[47:8]};
      answer_left <= answer_left - 3'd1;
    end
endmodule

`default_nettype wire
