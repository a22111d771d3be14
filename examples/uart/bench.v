// Bench of top.v: it speaks over the serial pins alone. The last line that it prints begins with PASS or FAIL.
`default_nettype none

module bench;
  localparam DIV = 8;
  localparam BIT = 10 * DIV; // time of a bit
  reg clk, rst, rx;
  wire tx;
  wire [2:0] flags;
  top #(.DIV(DIV)) dut (.clk(clk), .rst(rst), .rx(rx), .tx(tx), .flags(flags));

  initial clk = 1'b0;
  always #5 clk = !clk;

  task send(input [7:0] data);
    integer k;
    begin
      rx = 1'b0;
      #BIT;
      for (k = 0; k < 8; k = k + 1) begin
        rx = data[k];
        #BIT;
      end
      rx = 1'b1;
      #BIT;
    end
  endtask

  task send_all(input [199:0] bytes, input integer count);
    integer k;
    for (k = 0; k < count; k = k + 1) send(bytes[8 * k +: 8]);
  endtask

  // The other direction, all the time: bytes of the answer, the first one lowest.
  reg [47:0] answer;
  integer came, k;
  initial begin
    came = 0;
    forever begin
      @(negedge tx);
      #(BIT + BIT / 2);
      for (k = 0; k < 8; k = k + 1) begin
        answer = {tx, answer[47:1]};
        #BIT;
      end
      came = came + 1;
    end
  end

  integer wrong;
  task expect_answer(input [47:0] expected, input integer count);
    integer patience;
    begin
      patience = 0;
      while (came < count && patience < 2000) begin
        #BIT;
        patience = patience + 1;
      end
      #(2 * BIT); // one byte more would begin
      answer = answer >> (48 - 8 * count);
      if (came != count || answer != expected || !tx) begin
        $display("got %h in %0d bytes, expected %h in %0d", answer, came, expected, count);
        wrong = wrong + 1;
      end
      came = 0;
    end
  endtask

  // An element of a group: its sign and magnitude.
  function [4:0] e(input integer value);
    reg [31:0] magnitude;
    begin
      magnitude = value < 0 ? -value : value;
      e = {value < 0, magnitude[3:0]};
    end
  endfunction

  task multiply(input [79:0] a, input [7:0] a_exponent, input [79:0] b, input [7:0] b_exponent, input [3:0] slot,
                input first, input last);
    begin
      send("M");
      send_all({2'd0, last, first, slot, 8'd4, b_exponent, b, 8'd4, a_exponent, a}, 25);
    end
  endtask

  task update(input [15:0] weight, input [15:0] velocity, input [15:0] compensation, input [15:0] gradient,
              input [15:0] rate, input [15:0] momentum);
    begin
      send("W");
      // Method 2 is Kahan's; the decay is 0. Rates have no two top bits.
      send_all({96'd0, 2'd0, momentum[13:0], 2'd0, rate[13:0], 8'd2, gradient, compensation, velocity, weight}, 15);
    end
  endtask

  initial begin
    wrong = 0;
    rx = 1'b1;
    rst = 1'b1;
    #103 rst = 1'b0;
    #BIT;
    // Elements of a are worth 1/8 each, those of b 1/4: the dot product is (24 - 20 - 30 + 15) / 32 = -11/32.
    multiply({60'd0, e(1), e(15), e(-4), e(8)}, 8'd127, {60'd0, e(15), e(-2), e(5), e(3)}, 8'd128, 4'd5, 1'b1, 1'b0);
    // Another sum meanwhile: 3/8 * 1/4 = 3/32, in bf16 1.5 * 2**-4.
    multiply({75'd0, e(3)}, 8'd127, {75'd0, e(1)}, 8'd128, 4'd2, 1'b1, 1'b1);
    expect_answer({24'd0, 8'd2, 16'h3dc0}, 3);
    // To the first one 2/8 * 4/4 = 1/4 is added: -3/32.
    multiply({e(2), 75'd0}, 8'd127, {e(4), 75'd0}, 8'd128, 4'd5, 1'b0, 1'b1);
    expect_answer({24'd0, 8'd5, 16'hbdc0}, 3);
    // From the weight 1 goes 2**-9, half of the step to the number below. It ties to 1: Kahan's compensation keeps it.
    update(16'h3f80, 16'h0000, 16'h0000, 16'h3f80, 16'h3b00, 16'h0000);
    expect_answer({16'h3b00, 16'h3f80, 16'h3f80}, 6);
    // Again, with the compensation: 1 - 2**-8, and nothing is left over.
    update(16'h3f80, 16'h0000, 16'h3b00, 16'h3f80, 16'h3b00, 16'h0000);
    expect_answer({16'h0000, 16'h3f80, 16'h3f7f}, 6);
    // A byte that is no command is passed over. Momentum 1/2 of the velocity 1, and the gradient 1/2: again 1.
    send("?");
    update(16'h3f80, 16'h3f80, 16'h0000, 16'h3f00, 16'h3c00, 16'h3f00);
    expect_answer({16'h0000, 16'h3f80, 16'h3f7e}, 6);
    if (flags != 3'd0) begin
      $display("flags are %b, expected 000", flags);
      wrong = wrong + 1;
    end
    // The largest weight and a change in its direction: infinite, which the flag tells, and so is what is left over.
    update(16'h7f7f, 16'h0000, 16'h0000, 16'hff7f, 16'h3f80, 16'h0000);
    expect_answer({16'h7f80, 16'hff7f, 16'h7f80}, 6);
    if (flags != 3'b100) begin
      $display("flags are %b, expected 100", flags);
      wrong = wrong + 1;
    end
    if (wrong != 0) $display("FAIL: %0d of 8 checks", wrong);
    else $display("PASS: 8 checks");
    $finish;
  end
endmodule

`default_nettype wire
