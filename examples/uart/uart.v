// Serial receiver and transmitter: 8 data bits, no parity, one stop bit; DIV clock cycles a bit.
`default_nettype none

module uart_receiver #(parameter DIV = 104) (
  input wire clk,
  input wire rst,
  input wire rx,
  output reg [7:0] data,
  output reg valid // for one cycle
);
  localparam [15:0] WHOLE = DIV[15:0] - 16'd1, HALF = DIV[15:0] / 16'd2 - 16'd1;
  reg [1:0] settled; // the pin, two cycles later
  reg [15:0] wait_for;
  reg [3:0] bits; // still to come, the start bit among them
  always @(posedge clk) begin
    settled <= {settled[0], rx};
    valid <= 1'b0;
    if (rst) begin
      settled <= 2'b11;
      bits <= 4'd0;
      wait_for <= HALF;
      data <= 8'd0;
    end else if (bits == 4'd0) begin
      wait_for <= HALF; // to the middle of the start bit
      if (!settled[1]) bits <= 4'd9;
    end else if (wait_for != 16'd0) begin
      wait_for <= wait_for - 16'd1;
    end else begin
      wait_for <= WHOLE;
      bits <= bits - 4'd1;
      if (bits == 4'd9) begin
        if (settled[1]) bits <= 4'd0; // no start bit: a glitch
      end else begin
        data <= {settled[1], data[7:1]};
        valid <= bits == 4'd1;
      end
    end
  end
endmodule

module uart_transmitter #(parameter DIV = 104) (
  input wire clk,
  input wire rst,
  input wire [7:0] data,
  input wire valid,
  output wire ready,
  output wire tx
);
  localparam [15:0] WHOLE = DIV[15:0] - 16'd1;
  reg [8:0] line; // the lowest bit is on the pin
  reg [3:0] bits; // still to come
  reg [15:0] wait_for;
  assign ready = bits == 4'd0;
  assign tx = line[0];
  always @(posedge clk)
    if (rst) begin
      line <= 9'h1ff;
      bits <= 4'd0;
      wait_for <= 16'd0;
    end else if (ready) begin
      wait_for <= WHOLE;
      if (valid) begin
        line <= {data, 1'b0};
        bits <= 4'd10;
      end
    end else if (wait_for != 16'd0) begin
      wait_for <= wait_for - 16'd1;
    end else begin
      wait_for <= WHOLE;
      line <= {1'b1, line[8:1]};
      bits <= bits - 4'd1;
    end
endmodule

`default_nettype wire
